//! `wisr prerender`: makes the pages that a site lists before anybody serves it.

mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use serde_json::{Value, json};

pub(super) use show::follow_all;

use super::{serve, source_tree, terminal};
use crate::app::{Prerender, Report};
use crate::config::{Config, Overrides};
use crate::page::plural;

/// The exit code when some pages could not be made.
const SOME_FAILED: u8 = 3;

/// The exit code when a signal ended it, as shells say it of Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Make the pages that a site lists, so that its first readers find them made.
///
/// Makes what `static-paths` lists, and the pages of routes without parameters, where they are
/// missing or stale, and keeps them in SITE/.wisr/store, where `wisr serve` finds them. Whatever
/// ends it, what was made stays: the next run makes only the rest. A page that cannot be made does
/// not stop the others. A running server makes its pages by itself.
///
/// Exit codes: 0 all pages are made, 1 failed, 2 usage, 3 some pages could not be made, 130
/// stopped by a signal.
#[derive(Debug, Args)]
pub struct PrerenderArgs {
    /// The site's folder.
    #[arg(default_value = ".")]
    pub site: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Runs `wisr prerender`.
///
/// # Errors
/// What keeps all pages from being made or kept.
pub async fn run(args: PrerenderArgs) -> anyhow::Result<ExitCode> {
    let name = args.site.display();
    ensure!(
        args.site.is_dir(),
        "no folder `{name}`: `wisr build SRC -o {name}` makes one"
    );
    if !args.site.join("pages").is_dir() {
        let advice = source_tree(&args.site).unwrap_or_else(|| format!("no folder `{name}/pages`"));
        anyhow::bail!(advice);
    }
    make(&args.site, args.json).await
}

/// Makes the pages of the site at `site` and prints how that went.
///
/// # Errors
/// What keeps all pages from being made or kept.
pub(super) async fn make(site: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let config = Config::load(site, &Overrides::of_process())?;
    let stop = serve::stop_signal()?;
    tokio::pin!(stop);
    let opened = tokio::select! {
        opened = Prerender::open(config) => opened?,
        () = &mut stop => return Ok(ExitCode::from(INTERRUPTED)),
    };
    let pass = opened.pass();
    let report = {
        let run = opened.run(stop);
        tokio::pin!(run);
        tokio::select! {
            report = &mut run => report?,
            () = show::follow(&pass, |line| terminal::say(line)) => run.await?,
        }
    };
    if json {
        terminal::data(as_json(&report, began.elapsed()));
    }
    tell(&report, began.elapsed());
    Ok(ExitCode::from(code(&report)))
}

fn tell(report: &Report, took: Duration) {
    for refusal in &report.refused {
        let file = refusal.file.display();
        terminal::say(format!("not loaded: {file}: {}", refusal.message));
    }
    for (route, why) in &report.unlisted {
        terminal::say(format!("not listed: the pages of {route}: {why}"));
    }
    let failures = show::failures(&report.failures, report.count.failed);
    if !failures.is_empty() {
        terminal::say(failures);
    }
    let count = &report.count;
    let interrupted = match report.took {
        Some(_) => String::new(),
        None => {
            let left = count.listed.saturating_sub(count.done());
            format!("stopped with {left} page{} to make; ", plural(left))
        }
    };
    terminal::say(format!(
        "{interrupted}{} made, {} already fresh, {} failed in {}",
        count.made,
        count.fresh,
        count.failed,
        terminal::span(took)
    ));
}

fn as_json(report: &Report, took: Duration) -> Value {
    let failures = report.failures.iter().map(
        |(key, failure)| json!({"path": key, "kind": failure.kind, "message": failure.to_string()}),
    );
    let unlisted = report.unlisted.iter();
    let unlisted = unlisted.map(|(route, why)| json!({"route": route, "message": why}));
    json!({
        "listed": report.count.listed,
        "made": report.count.made,
        "fresh": report.count.fresh,
        "failed": report.count.failed,
        "seconds": took.as_secs_f64(),
        "interrupted": report.took.is_none(),
        "failures": failures.collect::<Vec<_>>(),
        "unlisted": unlisted.collect::<Vec<_>>(),
        "refused": report.refused,
    })
}

fn code(report: &Report) -> u8 {
    let is_whole =
        report.count.failed == 0 && report.unlisted.is_empty() && report.refused.is_empty();
    match report.took {
        None => INTERRUPTED,
        Some(_) if is_whole => 0,
        Some(_) => SOME_FAILED,
    }
}
