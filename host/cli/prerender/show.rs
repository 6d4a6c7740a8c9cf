//! `follow`: how the making of pages looks: a bar on a terminal, a line now and then elsewhere.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::app::Pass;
use crate::cli::terminal;
use crate::isr::Count;
use crate::page::{Failure, PageKey, plural};

/// How often the bar moves: often enough to look alive.
const TURN: Duration = Duration::from_millis(100);

/// The time between two lines: a log of an hour is still read in a minute.
const LINE: Duration = Duration::from_secs(5);

/// Failures that are named; the others are counted.
const NAMED: usize = 20;

/// Shows how a pass comes on, until it has ended: by a bar where a person watches, else by `say`.
pub(super) async fn follow(pass: &Pass, say: impl Fn(&str)) {
    let bar = terminal::watched().then(Bar::new);
    let every = if bar.is_some() { TURN } else { LINE };
    let mut turns = interval_at(Instant::now() + every, every);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ended = pass.ended();
    tokio::pin!(ended);
    loop {
        tokio::select! {
            _ = &mut ended => return,
            _ = turns.tick() => match &bar {
                Some(bar) => bar.show(pass.count()),
                None => say(&line(pass.count())),
            }
        }
    }
}

/// Shows each pass of a server, until dropped.
pub(in crate::cli) async fn follow_all(mut passes: watch::Receiver<Option<Arc<Pass>>>) {
    loop {
        let pass = passes.borrow_and_update().clone();
        let shown = async {
            if let Some(pass) = pass {
                follow(&pass, |line| tracing::info!("{line}")).await;
                let list = failures(&pass.failures(), pass.count().failed);
                if !list.is_empty() {
                    terminal::say(list);
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = shown => {}
            changed = passes.changed() => if changed.is_err() { return },
        }
    }
}

/// The failures that are named, a line for each; empty if there are none.
pub(super) fn failures(failures: &[(PageKey, Arc<Failure>)], failed: u64) -> String {
    let mut list = String::new();
    for (key, failure) in failures.iter().take(NAMED) {
        let reason = failure.to_string();
        let reason = reason.lines().next().unwrap_or_default();
        // Writing to a `String` cannot fail.
        let _ = writeln!(list, "not made: {key}: {reason}");
    }
    let unnamed = failed.saturating_sub(NAMED as u64);
    if unnamed > 0 {
        let _ = writeln!(list, "and {unnamed} more; the latest are incidents");
    }
    list.truncate(list.trim_end().len());
    list
}

fn line(count: Count) -> String {
    let Count {
        listed,
        made,
        fresh,
        failed,
    } = count;
    let done = count.done();
    let s = plural(listed);
    format!("{done} of {listed} page{s}: {made} made, {fresh} already fresh, {failed} failed")
}

/// The moving bar. Dropping it clears its line.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let style = ProgressStyle::with_template(
            "{elapsed:>4} [{bar:30}] pages: {pos} of {len}, {eta} left{msg}",
        );
        let style = style.expect("the template is a literal");
        Self(terminal::bar(style.progress_chars("=> ")))
    }

    fn show(&self, count: Count) {
        self.0.set_length(count.listed);
        self.0.set_position(count.done());
        if count.failed > 0 {
            self.0.set_message(format!(", {} failed", count.failed));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::FailureKind;

    #[test]
    fn failures_are_named_up_to_a_point_and_counted_from_there() {
        let failed = |number: u64| {
            let failure = Failure::new(FailureKind::Error, "render", "no\nsecond line");
            (PageKey::new(&format!("/{number}"), &[]), Arc::new(failure))
        };
        let all: Vec<_> = (0..25).map(failed).collect();
        assert_eq!(failures(&[], 0), "");
        assert_eq!(failures(&all[..1], 1), "not made: /0: render: no (error)");
        let list = failures(&all, 1_000_000);
        let lines: Vec<&str> = list.lines().collect();
        assert_eq!(lines.len(), NAMED + 1);
        assert_eq!(lines[NAMED], "and 999980 more; the latest are incidents");
    }
}
