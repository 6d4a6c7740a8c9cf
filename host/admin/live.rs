//! `Live`: what went on in the last minutes, sample by sample.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;

use crate::page::Timestamp;
use crate::telemetry::Counts;
use crate::telemetry::metrics::{Metrics, Verdict};

/// Between two samples.
pub(super) const EVERY: Duration = Duration::from_secs(2);

/// Five minutes: what an operator watches while something is happening. Longer is for Prometheus.
const KEPT: usize = 150;

/// The last minutes, and what the next sample is counted from.
#[derive(Default)]
pub(super) struct Live {
    samples: Mutex<VecDeque<Sample>>,
}

/// What happened between two samples, and how it was at the end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub(super) struct Sample {
    /// When it was taken, in milliseconds since the Unix epoch.
    pub(super) at: Timestamp,
    /// Seconds since the sample before.
    pub(super) seconds: f64,
    /// Pages that were fresh.
    pub(super) hits: u64,
    /// Pages that were shown stale, the last good one after a failure among them.
    pub(super) stale: u64,
    /// Pages that a reader waited for, and shells shown instead.
    pub(super) misses: u64,
    /// Readers who got no page.
    pub(super) errors: u64,
    /// Microseconds that half of all answers of the public door were begun in.
    pub(super) p50_us: Option<u64>,
    /// Microseconds that 99 of a hundred answers were begun in.
    pub(super) p99_us: Option<u64>,
    /// Generations that run.
    pub(super) running: i64,
    /// Generations that wait for a place.
    pub(super) waiting: i64,
    /// Open connections of the public door.
    pub(super) connections: i64,
}

/// All counts at one moment.
#[derive(Default)]
struct Totals {
    hits: u64,
    stale: u64,
    misses: u64,
    errors: u64,
    answers: Counts,
}

impl Totals {
    fn of(metrics: &Metrics) -> Self {
        let sum = |verdicts: &[&'static str]| {
            let verdicts = verdicts.iter();
            let counts = verdicts.map(|verdict| {
                let verdict = Verdict { verdict };
                metrics.served.get_or_create(&verdict).get()
            });
            counts.sum()
        };
        Self {
            hits: metrics.hits.get(),
            stale: sum(&["stale", "last-good"]),
            misses: sum(&["miss", "shell"]),
            errors: sum(&["error", "overloaded"]),
            answers: metrics.request_seconds.counts(),
        }
    }
}

impl Live {
    /// Takes samples until `stop`.
    pub(super) async fn watch(
        &self,
        metrics: &Arc<Metrics>,
        now: impl Fn() -> Timestamp,
        stop: impl Future<Output = ()>,
    ) {
        let mut before = (now(), Totals::of(metrics));
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return,
                _ = ticks.tick() => {}
            }
            let after = (now(), Totals::of(metrics));
            self.push(sample(metrics, &before, &after));
            before = after;
        }
    }

    fn push(&self, sample: Sample) {
        let mut samples = self.samples.lock();
        if samples.len() == KEPT {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// The samples that were taken after `after`, oldest first.
    pub(super) fn since(&self, after: Timestamp) -> Vec<Sample> {
        let samples = self.samples.lock();
        let later = samples.iter().filter(|sample| sample.at > after);
        later.copied().collect()
    }
}

fn sample(
    metrics: &Metrics,
    (then, before): &(Timestamp, Totals),
    (now, after): &(Timestamp, Totals),
) -> Sample {
    let answers = after.answers.since(&before.answers);
    let micros = |quantile| {
        let span = answers.quantile(quantile)?;
        u64::try_from(span.as_micros()).ok()
    };
    Sample {
        at: *now,
        seconds: now.since(*then).as_secs_f64(),
        hits: after.hits.saturating_sub(before.hits),
        stale: after.stale.saturating_sub(before.stale),
        misses: after.misses.saturating_sub(before.misses),
        errors: after.errors.saturating_sub(before.errors),
        p50_us: micros(0.5),
        p99_us: micros(0.99),
        running: metrics.generations_running.get(),
        waiting: metrics.generations_waiting.get(),
        connections: metrics.connections.get(),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::telemetry::Clock;

    #[tokio::test(start_paused = true)]
    async fn the_last_minutes_are_kept_and_no_more() {
        let (live, metrics) = (Live::default(), Arc::new(Metrics::new()));
        let clock = Clock::starting_at(Timestamp::from_millis(1_000));
        let stop = async {
            metrics.hits.inc_by(3);
            metrics
                .request_seconds
                .observe(None, StatusCode::OK, Duration::from_micros(90));
            tokio::time::sleep(EVERY * 200 + EVERY / 2).await;
        };
        live.watch(&metrics, || clock.now(), stop).await;
        let samples = live.since(Timestamp::from_millis(0));
        assert_eq!(samples.len(), KEPT);
        let last = samples[KEPT - 1];
        assert_eq!((last.at.as_millis(), last.seconds), (401_000, 2.0));
        assert_eq!(live.since(samples[KEPT - 3].at), samples[KEPT - 2..]);
        assert_eq!((last.hits, last.p50_us), (0, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sample_counts_what_came_after_the_one_before() {
        let (live, metrics) = (Live::default(), Arc::new(Metrics::new()));
        metrics.hits.inc_by(100);
        let clock = Clock::starting_at(Timestamp::from_millis(1_000));
        let stop = async {
            tokio::time::sleep(EVERY / 2).await;
            metrics.hits.inc_by(3);
            metrics
                .request_seconds
                .observe(None, StatusCode::OK, Duration::from_micros(90));
            metrics.generations_running.inc();
            tokio::time::sleep(EVERY).await;
        };
        live.watch(&metrics, || clock.now(), stop).await;
        let [only] = live.since(Timestamp::from_millis(0))[..] else {
            panic!("not one");
        };
        assert_eq!((only.hits, only.misses, only.running), (3, 0, 1));
        assert_eq!((only.p50_us, only.p99_us), (Some(100), Some(100)));
    }
}
