//! [`run`]: how small wisr is: start-up to the first page, memory at rest, the program's size.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cpu::{Cores, resident};
use crate::load::{get, once};
use crate::report::{Report, progress};
use crate::site::{PAGE, Site};

const STARTS: usize = 10;

/// Milliseconds from the start of the process to the first page.
const START_AT_MOST: f64 = 100.0;

/// MB of resident memory once the first page was made.
const MEMORY_AT_MOST: f64 = 60.0;

/// How long a server is left alone before its memory is read.
const REST: Duration = Duration::from_millis(500);

/// Measures what wisr is when nobody asks.
///
/// # Errors
/// When it does not start.
pub(crate) fn run(site: &Site, cores: &Cores, report: &mut Report) -> Result<()> {
    progress("start-up and memory");
    // Compiles whatever is not compiled yet.
    site.serve(&cores.servers)?.settle()?;
    let (mut starts, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let start = Instant::now();
        let wisr = site.serve(&cores.servers)?;
        once(wisr.site, &get(PAGE, ""))?;
        starts.push(start.elapsed().as_secs_f64() * 1e3);
        wisr.settle()?;
        std::thread::sleep(REST);
        memory.push(resident(wisr.process.pid())? as f64 / 1e6);
    }
    report.section("Small");
    report.row(
        "start to the first page, modules compiled before",
        starts,
        "ms",
        Some(START_AT_MOST),
    );
    report.row(
        "resident memory at rest",
        memory,
        "MB",
        Some(MEMORY_AT_MOST),
    );
    let program = std::fs::metadata(env!("CARGO_BIN_EXE_wisr"))?.len() as f64 / 1e6;
    report.row(
        "the program, line tables included",
        vec![program],
        "MB",
        None,
    );
    Ok(())
}
