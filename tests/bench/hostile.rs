//! [`run`]: what hostile pages cost the others: hits of one good page alone and beside two hundred
//! hostile ones, each of which runs into its limits again and again; and what it costs to compile in
//! a child process.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use wisr::guest::{CompileLimits, Compiler, Engine, EngineConfig};

use crate::cpu::Cores;
use crate::load::{Load, Measured, get};
use crate::report::{Report, progress};
use crate::site::{PAGE, Site, built, patched};

const ROUNDS: usize = 5;
const TURN: Duration = Duration::from_millis(1500);

/// Hits at a pace that leaves the cores half idle: 64 connections, 12,800 requests a second.
const PACE: Duration = Duration::from_millis(5);

/// Hostile pages at once.
const HOSTILE: usize = 200;

/// What they do, in turn.
const MISDEEDS: [&str; 8] = [
    "loop",
    "render-loop",
    "shell-loop",
    "hammer",
    "drip",
    "bomb",
    "stderr",
    "recursion",
];

/// From one answer to an attacker to its next question: it is the pages that are hostile here, not
/// the readers.
const BREATH: Duration = Duration::from_millis(100);

/// Modules compiled for each side.
const COMPILED: u32 = 10;

/// Measures hits beside hostile pages, and compiling in a child.
///
/// # Errors
/// When wisr itself cannot be measured.
pub(crate) fn run(module: &[u8], cores: &Cores, report: &mut Report) -> Result<()> {
    let site = Site::lay_out(module)?;
    site.put("hostile/[how]", &built("hostile")?)?;
    let wisr = site.serve(&cores.servers)?;
    wisr.settle()?;
    let full = Load::hits(wisr.site, PAGE, "");
    let paced = Load {
        pace: Some(PACE),
        ..full.clone()
    };
    let loads = [&paced, &full];
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let measure = || -> Result<Vec<Measured>> {
        let turns = loads.iter().map(|load| load.run(&cores.load, TURN));
        turns.collect()
    };
    for round in 0..ROUNDS {
        progress(&format!("hostile, round {} of {ROUNDS}", round + 1));
        alone.push(measure()?);
        beside.push(attacked(wisr.site, measure)?);
    }
    for (load, name) in ["12,800 hits/s", "as many hits as possible"]
        .iter()
        .enumerate()
    {
        report.section(&format!("Beside {HOSTILE} hostile pages: {name}"));
        let column = |turns: &[Vec<Measured>], of: fn(&Measured) -> f64| -> Vec<f64> {
            turns.iter().map(|turn| of(&turn[load])).collect()
        };
        let p99: fn(&Measured) -> f64 = |measured| measured.quantile(0.99);
        for (what, of) in [("p99", p99), ("requests/s", Measured::per_second)] {
            let (one, two) = (column(&alone, of), column(&beside, of));
            let ratio = two.iter().zip(&one).map(|(beside, alone)| beside / alone);
            report.ratio(
                format!("{what}, beside them / alone"),
                ratio.collect(),
                None,
            );
        }
        report.row("alone: p99".to_owned(), column(&alone, p99), "us", None);
        report.row(
            "beside them: p99".to_owned(),
            column(&beside, p99),
            "us",
            None,
        );
    }
    compiling(module, report)
}

/// Measures while [`HOSTILE`] readers ask for hostile pages.
fn attacked(
    site: SocketAddr,
    measure: impl FnOnce() -> Result<Vec<Measured>>,
) -> Result<Vec<Measured>> {
    static PAGES: AtomicUsize = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    let attack = || {
        while !done.load(Ordering::Relaxed) {
            // Another page each time: what failed a moment ago is not tried again at once.
            let page = PAGES.fetch_add(1, Ordering::Relaxed);
            let how = MISDEEDS[page % MISDEEDS.len()];
            // Whatever comes of it: the server must not be in a state to answer better.
            let _ = ask(site, &format!("/hostile/{how}?n={page}"));
            std::thread::sleep(BREATH);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..HOSTILE {
            scope.spawn(attack);
        }
        std::thread::sleep(TURN);
        let measured = measure();
        done.store(true, Ordering::Relaxed);
        measured
    })
}

fn ask(site: SocketAddr, path: &str) -> std::io::Result<usize> {
    let mut stream = TcpStream::connect(site)?;
    // A reader who has waited this long leaves; the page is made all the same.
    stream.set_read_timeout(Some(TURN))?;
    stream.write_all(&get(path, "connection: close\r\n"))?;
    stream.read(&mut [0; 1024])
}

/// How much longer a compilation takes in a child than in the process itself.
fn compiling(module: &[u8], report: &mut Report) -> Result<()> {
    progress("compiling");
    let runtime = tokio::runtime::Runtime::new()?;
    let engine = |compiler| {
        Engine::new(EngineConfig {
            cache: None,
            state: None,
            instances: 2,
            max_memory: 128 << 20,
            compiler,
            compile: CompileLimits::default(),
            fast_compile: false,
            quick: u64::MAX,
            compile_threads: 2,
        })
    };
    let child = engine(Compiler::Child(PathBuf::from(env!("CARGO_BIN_EXE_wisr"))))?;
    let inside = engine(Compiler::InProcess)?;
    let time = |engine: &Engine, version| -> Result<f64> {
        let loaded = runtime.block_on(engine.load(patched(module, version)?))?;
        let time = loaded.compile_time().context("nothing is kept")?;
        Ok(time.as_secs_f64() * 1e3)
    };
    let (mut children, mut insides) = (Vec::new(), Vec::new());
    for version in 0..COMPILED {
        children.push(time(&child, version)?);
        insides.push(time(&inside, version)?);
    }
    report.section("Compiling a page");
    let ratio = children
        .iter()
        .zip(&insides)
        .map(|(child, inside)| child / inside);
    report.ratio(
        "in a child / in the process".to_owned(),
        ratio.collect(),
        None,
    );
    report.row("in a child of 2 threads".to_owned(), children, "ms", None);
    report.row(
        "in the process, on all cores".to_owned(),
        insides,
        "ms",
        None,
    );
    Ok(())
}
