//! `Sum`: a number to which every thread adds in a place of its own.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Atomic;
use thread_local::ThreadLocal;

/// A sum to which each thread adds in a place of its own: a single number would go from core to
/// core with every hit.
#[derive(Debug, Default)]
pub struct Sum(ThreadLocal<Part>);

/// One thread's part, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Part(AtomicU64);

impl Atomic<u64> for Sum {
    fn inc(&self) -> u64 {
        self.inc_by(1)
    }

    fn inc_by(&self, more: u64) -> u64 {
        let Part(part) = self.0.get_or_default();
        part.fetch_add(more, Ordering::Relaxed)
    }

    fn get(&self) -> u64 {
        let parts = self.0.iter();
        parts.map(|Part(part)| part.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_add_is_summed_up_also_when_they_are_gone() {
        let sum = Sum::default();
        for _ in 0..3 {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| sum.inc());
                }
            });
        }
        assert_eq!(sum.get(), 12);
    }
}
