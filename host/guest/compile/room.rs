//! `Room`: how many compilations there may be at once, by the memory that is left for them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::telemetry::Memory;

/// Modules that compile at once for somebody who waits. Two keep the threads busy while one of them
/// ends in its largest function; more would only take more memory.
pub(in super::super) const COMPILATIONS: usize = 2;

/// Modules of more bytes compile one after the other: each of them keeps all threads busy by itself.
const LARGE: u64 = 4 << 20;

/// What a child takes however small its module is: the program, its allocator and its threads.
const BASE: u64 = 64 << 20;

/// Bytes of memory that compiling takes for each byte of a module. Of a page in Python of 19 MB it
/// took 450 MiB, by either compiler.
const FACTOR: u64 = 24;

/// How often who waits looks whether there is more memory by now.
const LOOK: Duration = Duration::from_secs(1);

/// Bytes that compiling a module of `size` bytes may be expected to take, and no more than `most`.
fn need(size: u64, most: u64) -> u64 {
    BASE.saturating_add(size.saturating_mul(FACTOR)).min(most)
}

/// A compilation, by what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Load {
    id: u64,
    need: u64,
    is_large: bool,
    /// Nobody waits for it: the module runs already.
    is_upgrade: bool,
}

/// The compilations that run.
#[derive(Debug, Default)]
pub(in super::super) struct Room {
    running: Mutex<(u64, Vec<Load>)>,
    changed: Notify,
}

/// A turn to compile, until it is dropped.
#[derive(Debug)]
pub(in super::super) struct Turn {
    room: Arc<Room>,
    load: Load,
}

impl Room {
    /// A turn for a module of `size` bytes, as soon as there is memory for it.
    pub(in super::super) async fn turn(
        self: &Arc<Self>,
        size: u64,
        most: u64,
        is_upgrade: bool,
    ) -> Turn {
        let mut load = Load {
            id: 0,
            need: need(size, most),
            is_large: size > LARGE,
            is_upgrade,
        };
        loop {
            let changed = self.changed.notified();
            {
                let (last, running) = &mut *self.running.lock();
                if fits(running, load, left()) {
                    *last += 1;
                    load.id = *last;
                    running.push(load);
                    let room = Arc::clone(self);
                    return Turn { room, load };
                }
            }
            // Others than these take memory, and give it back.
            let _ = tokio::time::timeout(LOOK, changed).await;
        }
    }
}

impl Turn {
    /// Bytes that there are for it, beside what others take; without end where nobody knows.
    pub(in super::super) fn space(&self) -> u64 {
        let others = self.room.running.lock();
        let others = others.1.iter().filter(|load| load.id != self.load.id);
        let needs = others.fold(0_u64, |sum, load| sum.saturating_add(load.need));
        left().map_or(u64::MAX, |left| left.saturating_sub(needs))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut running = self.room.running.lock();
        running.1.retain(|load| load.id != self.load.id);
        drop(running);
        self.room.changed.notify_waiters();
    }
}

fn left() -> Option<u64> {
    Memory::now().map(|memory| memory.left)
}

/// Whether one more may begin. What those that run have taken already counts twice, which errs on
/// the right side. With nobody else there it begins whatever there is: it may need less.
fn fits(running: &[Load], load: Load, left: Option<u64>) -> bool {
    if running.is_empty() {
        return true;
    }
    let same = running
        .iter()
        .filter(|other| other.is_upgrade == load.is_upgrade);
    let most = if load.is_upgrade { 1 } else { COMPILATIONS };
    let needs = running
        .iter()
        .fold(load.need, |sum, other| sum.saturating_add(other.need));
    let is_alone = !load.is_large || !same.clone().any(|other| other.is_large);
    same.count() < most && is_alone && left.is_none_or(|left| needs <= left)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn load(size: u64, is_upgrade: bool) -> Load {
        Load {
            id: 0,
            need: need(size, 2 << 30),
            is_large: size > LARGE,
            is_upgrade,
        }
    }

    #[test]
    fn children_at_once_are_bounded_by_the_memory_that_is_left() {
        let (small, large) = (load(MIB, false), load(19 * MIB, false));
        let upgrade = load(19 * MIB, true);
        assert_eq!((small.need, large.need), (88 * MIB, 520 * MIB));
        assert!(fits(&[], large, Some(0)), "it may need less");
        assert!(fits(&[small], small, Some(176 * MIB)));
        assert!(!fits(&[small], small, Some(175 * MIB)));
        assert!(fits(&[small], small, None), "the kernel does not say");
        assert!(!fits(&[small, small], small, None));
        assert!(fits(&[large], small, Some(700 * MIB)));
        assert!(!fits(&[large], large, None), "one after the other");
        assert!(fits(&[upgrade], large, None), "somebody waits for it");
        assert!(!fits(&[upgrade], large, Some(1_039 * MIB)));
        assert!(!fits(&[upgrade], upgrade, None));
    }

    #[tokio::test]
    async fn a_turn_that_ends_is_the_next_ones() {
        let room = Arc::new(Room::default());
        let turn = || room.turn(1, 1, true);
        let first = turn().await;
        let mut second = std::pin::pin!(turn());
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        drop(first);
        second.await;
        assert!(room.running.lock().1.is_empty());
    }
}
