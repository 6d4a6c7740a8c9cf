//! `Upgrade`: a module that runs on code of the baseline compiler gets that of the optimising one.
//!
//! It stays the same module: no new release, no page stale, no run cut short. Runs go on to their
//! end on the code that they began with.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::artifact::Fingerprint;
use super::code::Code;
use super::engine::Engine;
use super::module::{LoadError, Module};
use crate::page::Digest;

/// Better code being made. Dropping it ends that, the compiler included.
pub(super) struct Upgrade(JoinHandle<()>);

impl Drop for Upgrade {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Engine {
    /// Has better code made for `module`, which owns the work: a module that is replaced meanwhile
    /// needs none.
    pub(super) fn upgrade(&self, module: &Arc<Module>, name: Fingerprint, bytes: Bytes) {
        let (engine, held) = (self.clone(), Arc::downgrade(module));
        let digest = module.digest;
        let work = tokio::spawn(async move {
            let made = engine.optimized(digest, name, bytes).await;
            settle(&held, digest, made);
        });
        // Nobody else sets it: the module is new.
        let _ = module.upgrade.set(Upgrade(work));
    }

    async fn optimized(
        &self,
        digest: Digest,
        name: Fingerprint,
        bytes: Bytes,
    ) -> Result<Arc<Code>, LoadError> {
        let _turn = self.upgrade_turn().await;
        let turn = self.compilation(bytes.len() as u64, true).await;
        let fresh = self.make(name, bytes, &turn).await?;
        drop(turn);
        let (native, _) = self.settle(fresh, digest).await?;
        let (code, _) = self.prepare(native).await?;
        Ok(Arc::new(code))
    }
}

/// Puts the code in place. Without it, the module goes on as it is: slower, but it serves.
fn settle(held: &Weak<Module>, digest: Digest, made: Result<Arc<Code>, LoadError>) {
    let Some(module) = held.upgrade() else {
        return;
    };
    let digest = digest.short();
    match made {
        Ok(code) => {
            let seconds = code.time.unwrap_or_default().as_secs_f64();
            module.code.store(code);
            tracing::debug!(
                module = digest,
                seconds,
                "module runs on optimised code now"
            );
        }
        Err(error) => {
            tracing::warn!(
                module = digest,
                "module stays on code compiled in haste, which is slower: {error}"
            );
        }
    }
}
