//! [`run`]: the store at a million pages: what it holds in memory, how soon it shows a page after a start
//! and after `kill -9`, what a hit from disk costs, how fast pages are made in bulk.
//!
//! `WISR_BENCH_PAGES` is how many pages there are, a million unless it says otherwise.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wisr::page::Digest;

use crate::cpu::{Cores, peak, resident, spent};
use crate::load::{Load, get, once};
use crate::pages::TAG;
use crate::report::{Report, progress};
use crate::servers::Process;
use crate::site::{Site, invalidate};

const PAGES: usize = 1_000_000;

/// Pages of the mixed load.
const MIXED: usize = 200_000;

/// Pages made in bulk; fewer where there are fewer in all.
const BULK: usize = 100_000;

/// `store.memory` of the loads: the default.
const MEMORY: usize = 256 << 20;

/// What the process may hold for it, in bytes: the store's documentation has the sum.
const FIXED: usize = (64 + 48 + 100) << 20;
const SLACK: f64 = 1.15;

/// Seconds from the start of the process to the first hit; also after it was killed.
const START_AT_MOST: f64 = 1.0;
const RECOVERY_AT_MOST: f64 = 3.0;
const STARTS: usize = 5;
const KILLS: usize = 3;

/// How long pages are written before the process is killed.
const WEAR: Duration = Duration::from_secs(4);

/// What a process may hold of which nearly every hit is one from disk, in bytes: a few pages for each
/// shard of the memory tier.
const SMALL: usize = 4 << 20;

/// CPU time of a hit from disk, in hits from memory.
const COLD_AT_MOST: f64 = 3.0;
const ROUNDS: usize = 5;
const TURN: Duration = Duration::from_millis(1500);

/// CPU time in half a second with nothing to do: a tick of the kernel's count.
const IDLE: Duration = Duration::from_millis(10);
const AT_REST: Duration = Duration::from_secs(120);

/// Pages that are asked for from memory, then from disk.
const ASKED: usize = 2_000;

/// Milliseconds until an invalidation of all pages holds and is on disk.
const INVALIDATION_AT_MOST: f64 = 10.0;
const INVALIDATIONS: usize = 10;

/// A site with a filled store.
struct Bench<'a> {
    site: Site,
    pages: usize,
    module: String,
    cores: &'a Cores,
}

/// Measures the store.
///
/// # Errors
/// When wisr loses a page, or does not start.
pub(crate) fn run(module: &[u8], cores: &Cores, report: &mut Report) -> Result<()> {
    let pages = std::env::var("WISR_BENCH_PAGES").map_or(Ok(PAGES), |pages| pages.parse())?;
    let bench = Bench {
        site: Site::with(&config(MEMORY), &["p/[id]"], module)?,
        pages,
        module: Digest::of(module).to_string(),
        cores,
    };
    report.section(&format!("Store: {pages} pages of 5 to 20 KB, compressed"));
    bench.fill(report)?;
    bench.mix(report)?;
    bench.starts(report)?;
    bench.kills(report)?;
    bench.hits(report)?;
    bench.invalidations(report)?;
    bulk(BULK.min(pages), module, cores, report)
}

fn config(memory: usize) -> String {
    format!("[server]\ndrain = \"1s\"\n[store]\nmemory = \"{memory}B\"\ndisk = \"unlimited\"\n")
}

/// The documented bound of a process that keeps `memory` bytes of pages in memory.
fn bound() -> f64 {
    let cache = (MEMORY / 10).clamp(16 << 20, 64 << 20);
    (MEMORY + 2 * cache + FIXED) as f64 * SLACK
}

impl Bench<'_> {
    /// Starts a process that does `what` with the store.
    fn keeper(&self, what: &str, pages: usize) -> Result<Process> {
        let store = self.site.store();
        std::fs::create_dir_all(&store)?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["--keeper", what])
            .arg(store)
            .args([&pages.to_string(), &MEMORY.to_string(), &self.module])
            .stdout(Stdio::piped());
        let mut all = self.cores.servers.clone();
        all.extend(&self.cores.load);
        Process::start("the keeper of a store", command, &all)
    }

    fn told(&self, what: &str, pages: usize) -> Result<Value> {
        let mut keeper = self.keeper(what, pages)?;
        let mut told = String::new();
        let mut stdout = keeper.stdout().context("stdout is a pipe")?;
        stdout.read_to_string(&mut told)?;
        serde_json::from_str(&told)
            .with_context(|| format!("{what}: the keeper of the store failed"))
    }

    fn fill(&self, report: &mut Report) -> Result<()> {
        progress(&format!("writing {} pages", self.pages));
        let told = self.told("fill", self.pages)?;
        let figure = |name: &str| vec![told[name].as_f64().unwrap_or(f64::NAN)];
        report.row("pages written, four cores", figure("written"), "/s", None);
        report.row(
            "pages read, one after the other",
            figure("read"),
            "/s",
            None,
        );
        memory("filling and reading", &told, report);
        Ok(())
    }

    fn mix(&self, report: &mut Report) -> Result<()> {
        progress("a mixed load");
        let told = self.told("mix", MIXED.min(self.pages))?;
        memory("mixed load", &told, report);
        let share = |name: &str| told[name].as_f64().unwrap_or(f64::NAN);
        for when in ["before", "during", "after"] {
            let what = format!("mixed load: hits in memory {when} a crawler of all pages");
            report.row(what, vec![share(when) * 100.0], "%", None);
        }
        let what = "mixed load: hits lost to the crawler, before / after";
        report.ratio(what, vec![share("before") / share("after")], Some(1.05));
        Ok(())
    }

    /// Starts the server and asks for one of all pages.
    fn start(&self) -> Result<f64> {
        let path = format!("/p/{}", fastrand::usize(..self.pages));
        let start = Instant::now();
        let wisr = self.site.serve(&self.cores.servers)?;
        let (head, _) = once(wisr.site, &get(&path, ""))?;
        let seconds = start.elapsed().as_secs_f64();
        ensure!(is_hit(&head), "{path} is no hit after a start: {head}");
        Ok(seconds)
    }

    /// Looks for every page, after a start: one that is asked for says nothing about the others.
    fn count(&self) -> Result<()> {
        let found = self.told("count", self.pages)?;
        ensure!(
            found["found"] == self.pages,
            "of {} pages there are {found} after a start",
            self.pages
        );
        let state = self.site.store();
        let aside = state.with_extension("damaged");
        ensure!(!aside.exists(), "{} was set aside", state.display());
        Ok(())
    }

    fn starts(&self, report: &mut Report) -> Result<()> {
        progress("starts");
        // Compiles the module.
        self.start()?;
        let mut starts = Vec::new();
        for _ in 0..STARTS {
            starts.push(self.start()?);
            self.count()?;
        }
        let what = "start to the first hit, after a stop";
        report.row(what, starts, "s", Some(START_AT_MOST));
        Ok(())
    }

    fn kills(&self, report: &mut Report) -> Result<()> {
        let mut starts = Vec::new();
        for _ in 0..KILLS {
            progress("a start after kill -9");
            let mut keeper = self.keeper("wear", self.pages)?;
            std::thread::sleep(WEAR);
            keeper.kill()?;
            starts.push(self.start()?);
            self.count()?;
        }
        let what = "start to the first hit, after kill -9 while writing";
        report.row(what, starts, "s", Some(RECOVERY_AT_MOST));
        Ok(())
    }

    /// The same pages with a memory that has room for all of them, and with one that has for few, in
    /// turns: what else the machine does concerns both.
    fn hits(&self, report: &mut Report) -> Result<()> {
        let (mut warm, mut cold) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            progress("hits from memory and from disk");
            warm.push(self.cost_of_hits(MEMORY)?);
            cold.push(self.cost_of_hits(SMALL)?);
        }
        let pairs = cold.iter().zip(&warm);
        let ratios = pairs.map(|(cold, warm)| cold / warm).collect();
        let what = "CPU time of a hit, from disk / from memory";
        report.ratio(what, ratios, Some(COLD_AT_MOST));
        report.row("CPU time of a hit from memory", warm, "us", None);
        report.row("CPU time of a hit from disk", cold, "us", None);
        Ok(())
    }

    /// Microseconds of CPU time for a hit of a process that was just started, once it has found what
    /// it has room for.
    fn cost_of_hits(&self, memory: usize) -> Result<f64> {
        self.site.configure(&config(memory))?;
        let wisr = self.site.serve(&self.cores.servers)?;
        let paths = (0..ASKED).map(|page| format!("/p/{}", page * self.pages / ASKED));
        let load = Load {
            requests: paths
                .map(|path| get(&path, "accept-encoding: br\r\n"))
                .collect(),
            ..Load::hits(wisr.site, "/", "")
        };
        rest(wisr.process.pid())?;
        load.run(&self.cores.load, TURN)?;
        let before = spent(wisr.process.pid())?;
        let measured = load.run(&self.cores.load, TURN)?;
        let used = spent(wisr.process.pid())?.saturating_sub(before);
        Ok(used.as_secs_f64() * 1e6 / measured.requests() as f64)
    }

    fn invalidations(&self, report: &mut Report) -> Result<()> {
        progress("invalidations");
        self.site.configure(&config(MEMORY))?;
        let wisr = self.site.serve(&self.cores.servers)?;
        let mut spans = Vec::new();
        for _ in 0..INVALIDATIONS {
            let path = format!("/p/{}", fastrand::usize(..self.pages));
            let start = Instant::now();
            once(wisr.site, &invalidate(TAG))?;
            spans.push(start.elapsed().as_secs_f64() * 1e3);
            let (head, _) = once(wisr.site, &get(&path, ""))?;
            ensure!(
                !is_hit(&head),
                "{path} is a hit after an invalidation: {head}"
            );
        }
        let what = "a tag of all pages invalidated, call to answer, synced";
        report.row(what, spans, "ms", Some(INVALIDATION_AT_MOST));
        Ok(())
    }
}

/// Waits until a process has nothing left to do: the compaction of what was written before is no part
/// of what a hit costs.
fn rest(process: u32) -> Result<()> {
    let until = Instant::now() + AT_REST;
    loop {
        let before = spent(process)?;
        std::thread::sleep(Duration::from_millis(500));
        if spent(process)? - before <= IDLE {
            return Ok(());
        }
        ensure!(Instant::now() < until, "wisr is busy for {AT_REST:?}");
    }
}

fn is_hit(head: &str) -> bool {
    head.to_ascii_lowercase().contains("x-wisr-cache: hit")
}

fn memory(what: &str, told: &Value, report: &mut Report) {
    let mb = |name: &str| told[name].as_f64().unwrap_or(f64::NAN) / 1e6;
    for name in ["peak", "resident"] {
        let what = format!("{what}: {name} memory of 256 MiB for pages");
        report.row(what, vec![mb(name)], "MB", Some(bound() / 1e6));
    }
}

/// Pages that a module lists, made by `wisr serve` on the servers' cores.
fn bulk(pages: usize, module: &[u8], cores: &Cores, report: &mut Report) -> Result<()> {
    progress(&format!("making {pages} pages in bulk"));
    let config = |listed: usize| {
        format!(
            "{}[routes.\"/bulk/[bulk]\"]\ncpu = \"30s\"\nwall = \"60s\"\nsettings = {{ listed = \"{listed}\" }}\n",
            config(MEMORY)
        )
    };
    let site = Site::with(&config(0), &["bulk/[bulk]"], module)?;
    // Compiles the module.
    site.serve(&cores.servers)?.ready(Duration::from_secs(60))?;
    site.configure(&config(pages))?;
    let start = Instant::now();
    let wisr = site.serve(&cores.servers)?;
    wisr.ready(Duration::from_secs(300))?;
    let seconds = start.elapsed().as_secs_f64();
    let made = wisr.metric("wisr_generations_total{cause=\"build\",outcome=\"document\"}")?;
    let dropped = wisr.metric("wisr_store_dropped_total")?;
    ensure!(
        made >= pages as f64 && dropped == 0.0,
        "of {pages} pages {made} were made and {dropped} not kept"
    );
    let pid = wisr.process.pid();
    let cpu = spent(pid)?.as_secs_f64();
    report.section(&format!(
        "Bulk: {pages} trivial pages listed by a module, made by `wisr serve` on {} cores",
        cores.servers.len()
    ));
    report.row("pages made", vec![pages as f64 / seconds], "/s", None);
    report.row("CPU for each", vec![cpu * 1e6 / pages as f64], "us", None);
    report.row("peak memory", vec![peak(pid)? as f64 / 1e6], "MB", None);
    report.row("memory", vec![resident(pid)? as f64 / 1e6], "MB", None);
    Ok(())
}
