//! [`run`]: whether generations and compiling slow hits down: the same hits alone, beside eight
//! generations that keep the cores busy, and beside those and a module that is compiled again and
//! again.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;

use crate::cpu::Cores;
use crate::load::{Load, Measured};
use crate::report::{Report, progress};
use crate::site::{PAGE, Running, Site, patched, regenerate};

const ROUNDS: usize = 5;
const TURN: Duration = Duration::from_millis(1500);

/// Generations at once; the site's configuration allows as many.
const BUSY: usize = 8;

/// Hits at a pace that leaves the cores half idle: 64 connections, 12,800 requests a second.
const PACE: Duration = Duration::from_millis(5);

/// A new version this often: compiling takes about as long.
const SWAP: Duration = Duration::from_millis(250);

/// What goes on beside the hits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    Generations,
    GenerationsAndCompiling,
}

/// Measures hits beside other work.
///
/// # Errors
/// When wisr itself cannot be measured.
pub(crate) fn run(module: &[u8], site: &Site, cores: &Cores, report: &mut Report) -> Result<()> {
    let wisr = site.serve(&cores.servers)?;
    wisr.settle()?;
    let bench = Bench {
        module,
        site,
        wisr: &wisr,
        cores,
        compiled: AtomicUsize::new(0),
    };
    let full = Load::hits(wisr.site, PAGE, "");
    let paced = Load {
        pace: Some(PACE),
        ..full.clone()
    };
    let kinds = [
        Beside::Nothing,
        Beside::Generations,
        Beside::GenerationsAndCompiling,
    ];
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        progress(&format!("interference, round {} of {ROUNDS}", round + 1));
        let mut turns = Vec::new();
        for beside in kinds {
            turns.push(bench.turn(&[&paced, &full], beside)?);
        }
        rounds.push(turns);
    }
    tell(&rounds, report);
    let versions = bench.compiled.into_inner();
    progress(&format!("{versions} versions of a module were put in"));
    Ok(())
}

struct Bench<'a> {
    module: &'a [u8],
    site: &'a Site,
    wisr: &'a Running,
    cores: &'a Cores,
    compiled: AtomicUsize,
}

impl Bench<'_> {
    /// The loads, one after the other, beside the same other work.
    fn turn(&self, loads: &[&Load], beside: Beside) -> Result<Vec<Measured>> {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let busy = scope.spawn(|| self.keep_busy(beside, &done));
            let compiler = scope.spawn(|| self.keep_compiling(beside, &done));
            // The other work is to be under way.
            std::thread::sleep(SWAP);
            let measured = loads
                .iter()
                .map(|load| load.run(&self.cores.load, TURN))
                .collect();
            done.store(true, Ordering::Relaxed);
            for thread in [busy, compiler] {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            measured
        })
    }

    fn keep_busy(&self, beside: Beside, done: &AtomicBool) -> Result<()> {
        let load = Load {
            addr: self.wisr.site,
            requests: (0..BUSY)
                .map(|page| regenerate(&format!("/busy/{page}")))
                .collect(),
            connections: BUSY,
            pace: None,
        };
        while beside != Beside::Nothing && !done.load(Ordering::Relaxed) {
            // Each call ends with the generations that it began.
            load.run(&self.cores.load[..1], Duration::from_millis(100))?;
        }
        Ok(())
    }

    fn keep_compiling(&self, beside: Beside, done: &AtomicBool) -> Result<()> {
        while beside == Beside::GenerationsAndCompiling && !done.load(Ordering::Relaxed) {
            let version = self.compiled.fetch_add(1, Ordering::Relaxed) + 1;
            let module = patched(self.module, u32::try_from(version)?)?;
            self.site.put("swapped", &module)?;
            std::thread::sleep(SWAP);
        }
        Ok(())
    }
}

fn tell(rounds: &[Vec<Vec<Measured>>], report: &mut Report) {
    let column = |beside: usize, load: usize, of: fn(&Measured) -> f64| -> Vec<f64> {
        rounds
            .iter()
            .map(|turns| of(&turns[beside][load]))
            .collect()
    };
    let paired = |beside: usize, load: usize, of: fn(&Measured) -> f64| -> Vec<f64> {
        let alone = column(0, load, of);
        column(beside, load, of)
            .iter()
            .zip(alone)
            .map(|(busy, alone)| busy / alone)
            .collect()
    };
    let kinds = [
        "alone",
        "beside 8 busy generations",
        "beside those and compiling",
    ];
    let p99: fn(&Measured) -> f64 = |measured| measured.quantile(0.99);
    for (load, name) in ["12,800 hits/s", "as many hits as possible"]
        .iter()
        .enumerate()
    {
        report.section(&format!("Interference: {name}"));
        for (beside, kind) in kinds.iter().enumerate().skip(1) {
            report.ratio(
                format!("p99, {kind} / alone"),
                paired(beside, load, p99),
                None,
            );
            let rate = paired(beside, load, Measured::per_second);
            report.ratio(format!("requests/s, {kind} / alone"), rate, None);
        }
        for (beside, kind) in kinds.iter().enumerate() {
            report.row(
                format!("{kind}: p50"),
                column(beside, load, |of| of.quantile(0.5)),
                "us",
                None,
            );
            report.row(
                format!("{kind}: p99"),
                column(beside, load, p99),
                "us",
                None,
            );
            report.row(
                format!("{kind}: requests"),
                column(beside, load, Measured::per_second),
                "/s",
                None,
            );
        }
    }
}
