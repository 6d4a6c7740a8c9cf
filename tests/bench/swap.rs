//! A large module, swapped in: how soon it serves, with and without code made in haste, and how much
//! slower that code is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::runtime::Runtime;
use wisr::guest::{
    CompileLimits, Compiler, Engine, EngineConfig, Grants, Guest, Limits, Module, Role, Tier,
    outbound,
};
use wisr::page::{Cause, Context, Cost, Render};

use crate::report::{Report, median, progress};

/// Names the module: a page of some size that needs no setting and no host, such as one that
/// componentize-js makes.
const MODULE: &str = "WISR_BENCH_MODULE";

/// Swaps of each kind.
const ROUNDS: usize = 3;

/// Pages made on each kind of code in a round.
const PAGES: usize = 50;

/// How often it is looked whether the better code is there.
pub(crate) const LOOK: Duration = Duration::from_millis(10);

/// Measures the parts that a swap takes beside the look at the folder.
pub(crate) fn run(report: &mut Report) -> Result<()> {
    let Some(file) = std::env::var_os(MODULE) else {
        report.missing(format!("swap: {MODULE} names no large page module"));
        return Ok(());
    };
    let bytes = std::fs::read(&file).with_context(|| format!("{MODULE}: {}", file.display()))?;
    let runtime = Runtime::new()?;
    let (mut waits, mut live, mut better, mut slower) =
        <(Vec<_>, Vec<_>, Vec<_>, Vec<_>)>::default();
    for round in 0..ROUNDS {
        progress(&format!("swapping a large module, round {}", round + 1));
        let engine = engine(u64::MAX)?;
        let start = Instant::now();
        runtime.block_on(engine.load(bytes.clone()))?;
        waits.push(start.elapsed().as_secs_f64());

        let engine = self::engine(1 << 20)?;
        let start = Instant::now();
        let module = runtime.block_on(engine.load(bytes.clone()))?;
        live.push(start.elapsed().as_secs_f64());
        let hasty = runtime.block_on(cpu(&engine, &module))?;
        while module.tier() == Tier::Baseline {
            std::thread::sleep(LOOK);
        }
        better.push(start.elapsed().as_secs_f64());
        slower.push(hasty / runtime.block_on(cpu(&engine, &module))?);
    }
    report.section("Swapping a large module in");
    report.row(
        "it serves, without code made in haste".to_owned(),
        waits,
        "s",
        None,
    );
    report.row("it serves".to_owned(), live, "s", None);
    report.row("it has its better code".to_owned(), better, "s", None);
    report.ratio(
        "CPU time of a page until then / from then on".to_owned(),
        slower,
        None,
    );
    Ok(())
}

pub(crate) fn engine(quick: u64) -> Result<Engine> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Engine::new(EngineConfig {
        cache: None,
        state: None,
        instances: 2,
        max_memory: Limits::default().memory,
        compiler: Compiler::Child(PathBuf::from(env!("CARGO_BIN_EXE_wisr"))),
        compile: CompileLimits::default(),
        fast_compile: false,
        quick,
        compile_threads: cores.div_ceil(2),
    })?)
}

/// CPU seconds of a page in the middle of [`PAGES`].
async fn cpu(engine: &Engine, module: &Arc<Module>) -> Result<f64> {
    let costs = costs(engine, module).await?;
    Ok(median(
        costs.iter().map(|cost| cost.cpu.as_secs_f64()).collect(),
    ))
}

/// What each of [`PAGES`] pages costs.
pub(crate) async fn costs(engine: &Engine, module: &Arc<Module>) -> Result<Vec<Cost>> {
    let Role::Page(exports) = *module.role() else {
        bail!("the module is no page");
    };
    let grants = Grants {
        engine: engine.clone(),
        limits: Limits::default(),
        outbound: Arc::default(),
        client: outbound::Client::new(outbound::ClientConfig::default())?,
        settings: Arc::default(),
        may_revalidate: false,
    };
    let guest = Guest::new(Arc::clone(module), exports, grants);
    let context = Context {
        route: Arc::from("/"),
        path: "/".to_owned(),
        params: Vec::new(),
        query: Vec::new(),
        cause: Cause::FirstRequest,
    };
    let mut costs = Vec::new();
    for _ in 0..PAGES {
        let made = guest.generate(&context, None).await;
        let made = made.map_err(|failure| anyhow::anyhow!("{failure}"))?;
        costs.push(made.cost);
    }
    Ok(costs)
}
