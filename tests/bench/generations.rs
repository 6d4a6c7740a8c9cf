//! [`run`]: what making a page costs: wisr's sandbox and cache against a bare wasmtime loop over the
//! same module, and regenerations per second through the revalidate endpoint.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::runtime::{Builder, Handle};

use crate::bare_wasm::Bare;
use crate::cpu::{Cores, pinned, spent};
use crate::load::Load;
use crate::own::Own;
use crate::report::{Report, median, progress};
use crate::site::{Site, regenerate};

const ROUNDS: usize = 24;

/// Generations of each kind in a round. Those of the cache are fewer: they compress, which takes
/// twenty times as long as all the rest.
const TURNS: usize = 200;
const CACHE_TURNS: usize = 20;

/// Pages that are regenerated over HTTP at the same time.
const PAGES: usize = 16;

/// How often, and for how long.
const HTTP_ROUNDS: usize = 4;
const HTTP_SPAN: Duration = Duration::from_secs(2);

/// Instances at once, and bytes of memory for each: wisr's defaults, near enough.
pub(crate) const INSTANCES: u32 = 8;
pub(crate) const MEMORY: usize = 128 << 20;

/// Microseconds of one generation.
#[derive(Clone, Copy, Default)]
pub(crate) struct Split {
    pub(crate) instantiate: f64,
    pub(crate) static_props: f64,
    pub(crate) render: f64,
    /// Drop, and in wisr all that surrounds the calls.
    pub(crate) rest: f64,
    pub(crate) encode: f64,
    pub(crate) total: f64,
}

/// The part of a generation that a row tells.
type Part = fn(&Split) -> f64;

const PARTS: [(&str, Part); 6] = [
    ("store and instantiate", |split| split.instantiate),
    ("static-props", |split| split.static_props),
    ("render", |split| split.render),
    ("drop and the rest", |split| split.rest),
    ("encode", |split| split.encode),
    ("total", |split| split.total),
];

/// Measures generations.
///
/// # Errors
/// When wisr itself cannot be measured.
pub(crate) fn run(module: &[u8], site: &Site, cores: &Cores, report: &mut Report) -> Result<()> {
    let rounds = pinned(&cores.servers, || in_process(module))?;
    let column = |kind: usize, part: Part| -> Vec<f64> {
        rounds
            .iter()
            .map(|round| median(round[kind].iter().map(part).collect()))
            .collect()
    };
    let paired = |kind: usize, part: Part| -> Vec<f64> {
        column(kind, part)
            .iter()
            .zip(column(0, |split| split.total))
            .map(|(own, bare)| own / bare)
            .collect()
    };
    report.section("Generations, one at a time, medians of rounds, to the bare wasmtime loop");
    report.ratio(
        "wisr's sandbox / bare loop",
        paired(1, |split| split.total),
        Some(1.4),
    );
    let uncoded: Part = |split| split.total - split.encode;
    report.ratio(
        "wisr's regeneration without encode / bare loop",
        paired(2, uncoded),
        Some(1.4),
    );
    report.ratio(
        "the same, handed to another thread and back",
        paired(3, uncoded),
        None,
    );
    report.section("Generations: the split");
    for (kind, name) in [
        "bare loop",
        "wisr's sandbox",
        "wisr's regeneration",
        "handed over",
    ]
    .iter()
    .enumerate()
    {
        for (part_name, part) in PARTS {
            let values = column(kind, part);
            if values.iter().any(|value| *value != 0.0) {
                report.row(format!("{name}: {part_name}"), values, "us", None);
            }
        }
        let per_second = column(kind, |split| 1e6 / split.total);
        report.row(format!("{name}: one thread"), per_second, "/s", None);
    }
    over_http(site, cores, report)
}

/// One list of generations for each kind, for each round.
fn in_process(module: &[u8]) -> Result<Vec<[Vec<Split>; 4]>> {
    let threads = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        progress("generations: compiling");
        let bare = Bare::new(module)?;
        let own = Own::new(module, Handle::current()).await?;
        let apart = Own::new(module, threads.handle().clone()).await?;
        let mut rounds = Vec::new();
        for round in 0..=ROUNDS {
            let mut lists = [const { Vec::new() }; 4];
            for _ in 0..TURNS {
                lists[0].push(bare.generate().await.context("the bare loop")?);
            }
            for _ in 0..TURNS {
                lists[1].push(own.generate().await?);
            }
            for _ in 0..CACHE_TURNS {
                lists[2].push(own.revalidate().await?);
            }
            for _ in 0..CACHE_TURNS {
                lists[3].push(apart.revalidate().await?);
            }
            // The first round faults the pool's pages in.
            if round > 0 {
                rounds.push(lists);
            }
        }
        Ok(rounds)
    })
}

fn over_http(site: &Site, cores: &Cores, report: &mut Report) -> Result<()> {
    let wisr = site.serve(&cores.servers)?;
    wisr.settle()?;
    let load = Load {
        addr: wisr.site,
        requests: (0..PAGES)
            .map(|page| regenerate(&format!("/p/{page}")))
            .collect(),
        connections: PAGES,
        pace: None,
    };
    let (mut per_second, mut cpu, mut latency) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=HTTP_ROUNDS {
        progress(&format!(
            "regenerations over HTTP, round {round} of {HTTP_ROUNDS}"
        ));
        let before = spent(wisr.process.pid())?;
        let measured = load.run(&cores.load, HTTP_SPAN)?;
        let used = spent(wisr.process.pid())?
            .saturating_sub(before)
            .as_secs_f64()
            * 1e6;
        if round > 0 {
            per_second.push(measured.per_second());
            cpu.push(used / measured.requests() as f64);
            latency.push(measured.quantile(0.99));
        }
    }
    report.section(&format!(
        "Regenerations through /api/revalidate, {PAGES} pages at once, stored and compressed"
    ));
    report.row("regenerations", per_second, "/s", None);
    report.row("CPU for each, all of wisr", cpu, "us", None);
    report.row("p99", latency, "us", None);
    match wisr.entries("/p/") {
        Ok(entries) => split(&entries, report),
        Err(error) => report.missing(format!("the split of regenerations: {error:#}")),
    }
    Ok(())
}

/// The split as the admin door tells it: the last generation of each page.
fn split(entries: &Value, report: &mut Report) {
    let mut costs = Vec::new();
    find_costs(entries, &mut costs);
    if costs.is_empty() {
        return report.missing("the split of regenerations: /api/entries tells no costs");
    }
    for field in [
        "cpu_us",
        "instantiate_us",
        "static_props_us",
        "render_us",
        "encode_us",
        "wall_us",
    ] {
        let values: Vec<f64> = costs
            .iter()
            .filter_map(|cost| cost[field].as_f64())
            .collect();
        report.row(
            format!("cost.{field}, over the last {}", values.len()),
            values,
            "us",
            None,
        );
    }
}

fn find_costs<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) if fields.contains_key("render_us") => found.push(value),
        Value::Object(fields) => fields.values().for_each(|value| find_costs(value, found)),
        Value::Array(values) => values.iter().for_each(|value| find_costs(value, found)),
        _ => {}
    }
}

pub(crate) fn micros(span: Duration) -> f64 {
    span.as_secs_f64() * 1e6
}
