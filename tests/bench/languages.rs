//! The home page of `wisr new` in each language, built as `wisr build` builds it: what it costs beside
//! the same page in Rust.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tokio::runtime::Runtime;
use wisr::guest::Tier;
use wisr::page::Cost;

use crate::report::{Report, median, progress};
use crate::swap::{LOOK, costs, engine};

/// What people call them, and what `wisr new --lang` does. All others are compared with the first.
const LANGUAGES: [(&str, &str); 4] = [
    ("Rust", "rust"),
    ("C", "c"),
    ("JavaScript", "js"),
    ("Python", "python"),
];

/// What is measured of each, in the order of [`measure`].
const FIGURES: [(&str, &str); 4] = [
    ("size of the module", "MiB"),
    ("live after", "s"),
    ("time of a page, p50", "us"),
    ("memory of a page", "MiB"),
];

/// How often each is compiled, and its pages made.
const ROUNDS: usize = 3;

const MIB: f64 = (1 << 20) as f64;

/// Measures the languages whose tools are there.
pub(crate) fn run(report: &mut Report) -> Result<()> {
    let mut built = Vec::new();
    for (name, language) in LANGUAGES {
        progress(&format!("building a page in {name}"));
        match build(language) {
            Ok(module) => built.push((name, module, <[Vec<f64>; 4]>::default())),
            Err(error) => report.missing(format!("languages: {name}: {error:#}")),
        }
    }
    let runtime = Runtime::new()?;
    for round in 0..ROUNDS {
        progress(&format!("languages, round {}", round + 1));
        for (_, module, figures) in &mut built {
            let measured = runtime.block_on(measure(module))?;
            for (all, one) in figures.iter_mut().zip(measured) {
                all.push(one);
            }
        }
    }
    let Some(((first, _, base), others)) = built.split_first() else {
        return Ok(());
    };
    report.section(&format!(
        "A page in {first}, and the same in other languages"
    ));
    for ((what, unit), values) in FIGURES.iter().zip(base) {
        report.row(format!("{first}: {what}"), values.clone(), unit, None);
    }
    for (name, _, own) in others {
        for ((what, _), (own, base)) in FIGURES.iter().zip(own.iter().zip(base)) {
            let ratios = own.iter().zip(base).map(|(own, base)| own / base);
            report.ratio(format!("{name} / {first}: {what}"), ratios.collect(), None);
        }
    }
    Ok(())
}

/// Compiles the module as a server does, and makes its page again and again on the code that it keeps.
async fn measure(module: &[u8]) -> Result<[f64; 4]> {
    let engine = engine(1 << 20)?;
    let start = Instant::now();
    let loaded = engine.load(module.to_vec()).await?;
    let live = start.elapsed().as_secs_f64();
    while loaded.tier() == Tier::Baseline {
        tokio::time::sleep(LOOK).await;
    }
    let costs = costs(&engine, &loaded).await?;
    let of = |part: fn(&Cost) -> f64| median(costs.iter().map(part).collect());
    Ok([
        module.len() as f64 / MIB,
        live,
        of(|cost| cost.wall.as_secs_f64() * 1e6),
        of(|cost| cost.memory as f64 / MIB),
    ])
}

/// The module of a new site's home page. The tools of the language stay from run to run.
fn build(language: &str) -> Result<Vec<u8>> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/languages");
    let folder = target.join(language);
    fs::create_dir_all(&folder)?;
    let entries = fs::read_dir(&folder)?.flatten();
    for source in entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')) {
        match source.file_type()?.is_dir() {
            true => fs::remove_dir_all(source.path())?,
            false => fs::remove_file(source.path())?,
        }
    }
    wisr(&folder, &["new", ".", "--lang", language])?;
    wisr(&folder, &["build", ".", "-o", ".wisr/site"])?;
    let module = folder.join(".wisr/site/pages/index.wasm");
    fs::read(&module).with_context(|| module.display().to_string())
}

fn wisr(folder: &Path, arguments: &[&str]) -> Result<()> {
    let ended = Command::new(env!("CARGO_BIN_EXE_wisr"))
        .args(arguments)
        .current_dir(folder)
        .output()?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{}", said.trim());
    Ok(())
}
