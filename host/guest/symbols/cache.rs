//! `Cache`: what children read, and of which modules they can read nothing.

use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use tokio::sync::Mutex;

use super::super::frames::{Symbol, Symbols};
use super::Unread;
use crate::page::Digest;

/// Bytes of what is remembered: the places of thousands of failures.
const BYTES: usize = 4 << 20;

/// Modules of which something is remembered.
const MODULES: usize = 1_024;

/// What an entry takes beside its texts.
const ENTRY: usize = 256;

/// What is known of debug information.
pub(super) struct Cache {
    places: LruCache<(Digest, u64), Arc<[Symbol]>>,
    bytes: usize,
    modules: LruCache<Digest, Module>,
}

#[derive(Default)]
struct Module {
    /// One child at a time.
    gate: Arc<Mutex<()>>,
    spent: Duration,
    unread: Option<Unread>,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            places: LruCache::unbounded(),
            bytes: 0,
            modules: LruCache::unbounded(),
        }
    }
}

impl Cache {
    /// Adds what is known of the places to `known`; returns those that are not.
    pub(super) fn take(
        &mut self,
        module: Digest,
        offsets: &[u64],
        known: &mut Symbols,
    ) -> Vec<u64> {
        let mut missing = Vec::new();
        for offset in offsets {
            match self.places.get(&(module, *offset)) {
                Some(symbols) => _ = known.insert(*offset, Arc::clone(symbols)),
                None if missing.contains(offset) => {}
                None => missing.push(*offset),
            }
        }
        missing
    }

    /// Remembers what a place is, and forgets those that were not asked for for longest.
    pub(super) fn keep(&mut self, module: Digest, offset: u64, symbols: Arc<[Symbol]>) {
        self.bytes += weight(&symbols);
        if let Some(old) = self.places.put((module, offset), symbols) {
            self.bytes -= weight(&old);
        }
        while self.bytes > BYTES
            && let Some((_, old)) = self.places.pop_lru()
        {
            self.bytes -= weight(&old);
        }
    }

    /// Why nothing of a module is read any more.
    pub(super) fn unread(&mut self, module: Digest) -> Option<Unread> {
        self.modules.get(&module)?.unread.clone()
    }

    pub(super) fn give_up(&mut self, module: Digest, unread: Unread) {
        self.module(module).unread = Some(unread);
    }

    /// Held by who reads in a module.
    pub(super) fn gate(&mut self, module: Digest) -> Arc<Mutex<()>> {
        Arc::clone(&self.module(module).gate)
    }

    /// Adds to what reading in a module took; returns all of it.
    pub(super) fn spend(&mut self, module: Digest, time: Duration) -> Duration {
        let module = self.module(module);
        module.spent = module.spent.saturating_add(time);
        module.spent
    }

    fn module(&mut self, module: Digest) -> &mut Module {
        while self.modules.len() > MODULES {
            self.modules.pop_lru();
        }
        self.modules.get_or_insert_mut(module, Module::default)
    }
}

fn weight(symbols: &[Symbol]) -> usize {
    let texts = symbols
        .iter()
        .flat_map(|symbol| [&symbol.name, &symbol.place])
        .flatten();
    let texts: usize = texts.map(String::len).sum();
    ENTRY + size_of_val(symbols) + texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut cache = Cache::default();
        let module = Digest::of(b"module");
        let symbols = || -> Arc<[Symbol]> {
            [Symbol {
                name: Some("x".repeat(1 << 10)),
                place: None,
            }]
            .into()
        };
        for offset in 0..10_000 {
            cache.keep(module, offset, symbols());
            cache.keep(module, offset, symbols());
            assert!(cache.bytes <= BYTES);
        }
        let mut known = Symbols::new();
        let missing = cache.take(module, &[0, 9_999, 0], &mut known);
        assert_eq!((missing, known.len()), (vec![0], 1));
        for number in 0..2 * MODULES as u64 {
            let module = Digest::of(&number.to_le_bytes());
            cache.give_up(module, Unread::Depth);
            assert_eq!(cache.unread(module), Some(Unread::Depth));
        }
        assert!(cache.modules.len() <= MODULES + 1);
    }
}
