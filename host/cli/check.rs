//! `wisr check`: what a module is, and whether it would be served.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::terminal;
use crate::guest::{CompileLimits, Compiler, Engine, EngineConfig, EngineError, Limits, Module};

/// Say what modules are, and whether a server would take them.
///
/// Every file goes through the steps that `wisr serve` takes: it is read, validated, made into a component
/// when it is a core module, compiled, and started once in an empty sandbox.
///
/// Exit codes: 0 all would be served, 1 one would be refused, 2 usage.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The modules.
    #[arg(required = true, value_name = "FILE.wasm")]
    pub files: Vec<PathBuf>,
    /// Print a JSON array with one object for each file.
    #[arg(long)]
    pub json: bool,
}

/// Runs `wisr check`.
///
/// # Errors
/// A machine on which no module could run.
pub async fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let engine = offline()?;
    let mut reports = Vec::new();
    let mut refused = false;
    for file in &args.files {
        let found = look(&engine, file).await;
        refused |= found.is_err();
        match &found {
            found if args.json => reports.push(report(file, found)),
            Ok(module) => terminal::data(describe(file, module)),
            Err(error) => terminal::say(format!("{}: refused: {error:#}", file.display())),
        }
    }
    if args.json {
        terminal::data(serde_json::to_string_pretty(&reports)?);
    }
    Ok(ExitCode::from(u8::from(refused)))
}

/// An engine with the default limits, which keeps nothing.
fn offline() -> Result<Engine, EngineError> {
    Engine::new(EngineConfig {
        cache: None,
        instances: INSTANCES,
        max_memory: Limits::default().memory,
        compiler: Compiler::of_this_program(),
        compile: CompileLimits::default(),
        fast_compile: false,
        quick: u64::MAX,
        compile_threads: std::thread::available_parallelism().map_or(1, usize::from),
    })
}

/// Instances at once: modules are tried one after the other, and one may be starting while one ends.
const INSTANCES: u32 = 2;

async fn look(engine: &Engine, file: &Path) -> anyhow::Result<std::sync::Arc<Module>> {
    let bytes = tokio::fs::read(file).await.context("cannot be read")?;
    Ok(engine.load(bytes).await?)
}

fn describe(file: &Path, module: &Module) -> String {
    let compile_time = module.compile_time().unwrap_or_default();
    let imports = match module.imports() {
        [] => "none".to_owned(),
        imports => imports.join("\n                 "),
    };
    format!(
        "{}: would be served\n  \
         kind           {}\n  \
         digest         {}\n  \
         size           {}, compiled to {} in {}\n  \
         exports        {}\n  \
         imports        {imports}\n  \
         outgoing HTTP  {}",
        file.display(),
        module.kind().as_str(),
        module.digest().short(),
        terminal::size(module.size()),
        terminal::size(module.compiled_size()),
        terminal::span(compile_time),
        module.role().exports().join(", "),
        match module.wants_http() {
            true => "yes: list its hosts in `outbound` in wisr.toml",
            false => "no",
        },
    )
}

fn report(file: &Path, found: &anyhow::Result<std::sync::Arc<Module>>) -> Value {
    let file = file.display().to_string();
    match found {
        Err(error) => json!({"file": file, "served": false, "reason": format!("{error:#}")}),
        Ok(module) => json!({
            "file": file,
            "served": true,
            "kind": module.kind().as_str(),
            "digest": module.digest(),
            "size": module.size(),
            "compiledSize": module.compiled_size(),
            "compileSeconds": module.compile_time().unwrap_or_default().as_secs_f64(),
            "exports": module.role().exports(),
            "imports": module.imports(),
            "fetches": module.wants_http(),
        }),
    }
}
