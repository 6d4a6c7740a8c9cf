//! `wisr build`: the command, and the table it ends with.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::{BuildReport, Built, Native, Plan, Profile, Progress, Site, build, copy_files};
use crate::cli::{prerender, terminal};
use crate::config::{Config, Overrides};
use crate::guest::{Engine, EngineConfig};

/// Build a source tree into a site that `wisr serve` serves.
///
/// A folder with a `Cargo.toml` and a cdylib target, or with a `page.js`, `page.ts`, `page.py` or `page.c`, is
/// the page of the route it lies at: `SRC/posts/[id]/` becomes `SITE/pages/posts/[id].wasm`. Folders whose names begin with `_` or `.`, and `target`, `public`,
/// `content` and `node_modules`, are not routes. `SRC/public/` and `SRC/wisr.toml` are copied. A page that
/// does not compile, or that a server would refuse, leaves its module of the last build in place. Modules are
/// compiled to machine code here, so that the server starts at once.
///
/// What makes pages of JavaScript (from npm) and Python (from pip) is installed below `SRC/.wisr` when it is
/// needed, in pinned versions. Pages whose language this machine lacks (node, python3, clang) are left out.
///
/// Exit codes: 0 everything was built, 1 a module failed or was left out, 2 usage; with --prerender also those
/// of `wisr prerender`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The source tree.
    #[arg(default_value = ".")]
    pub src: PathBuf,
    /// The site's folder, made when it is not there.
    #[arg(short, long, value_name = "SITE")]
    pub out: PathBuf,
    /// Then make the pages that the site lists, as `wisr prerender SITE` does.
    #[arg(long)]
    pub prerender: bool,
    /// Leave out pages whose language this machine lacks without exit code 1.
    #[arg(long)]
    pub allow_left_out: bool,
}

/// Runs `wisr build`.
///
/// # Errors
/// What stops all pages; a page that fails is in the printed summary and the exit code.
pub async fn run(args: BuildArgs) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let plan = Plan::discover(Site {
        src: args.src,
        out: args.out,
    })
    .await?;
    for warning in &plan.warnings {
        terminal::say(format!("warning: {warning}"));
    }
    anyhow::ensure!(
        !(plan.pages.is_empty() && plan.broken.is_empty() && plan.left_out.is_empty()),
        "no pages in `{}`: a page is a folder with a page.js, page.ts, page.py or page.c, or with a Cargo.toml and \
         a cdylib target; `wisr new` makes one",
        plan.site.src.display()
    );
    // Before anything is written: a server could not start with a configuration that is wrong.
    Config::load(&plan.site.src, &Overrides::of_process())?;
    copy_files(&plan, Profile::Release)?;
    let engine = Config::load(&plan.site.out, &Overrides::of_process())?.engine;
    let engine = Engine::new(EngineConfig {
        // What is made here is kept, and no reader waits for it.
        quick: u64::MAX,
        // Whoever builds wants it tried.
        state: None,
        ..engine
    })?;
    let report = {
        let progress = Progress::start();
        build(&plan, Profile::Release, None, Some(&engine), &progress).await?
    };
    show_failures(&report);
    terminal::data(table(&report));
    for file in &report.removed {
        terminal::say(format!("removed {file}: nothing in the source makes it"));
    }
    let left_out = match plan.left_out.len() {
        0 => String::new(),
        count => format!(", {count} left out"),
    };
    terminal::say(format!(
        "{} built, {} failed{left_out} in {}: {}",
        report.built.len(),
        report.failed.len(),
        terminal::span(began.elapsed()),
        plan.site.out.display()
    ));
    let whole = report.failed.is_empty() && (args.allow_left_out || plan.left_out.is_empty());
    if args.prerender {
        // The sandbox is set up anew, and two would hold memory twice.
        drop(engine);
        let made = prerender::make(&plan.site.out, false).await?;
        if whole {
            return Ok(made);
        }
    }
    Ok(ExitCode::from(u8::from(!whole)))
}

/// Prints what the compiler said, once for all pages that failed for the same reason.
pub(in crate::cli) fn show_failures(report: &BuildReport) {
    let mut said: Vec<&str> = Vec::new();
    for failed in &report.failed {
        if !said.contains(&failed.message.as_str()) {
            said.push(&failed.message);
            let same = report
                .failed
                .iter()
                .filter(|other| other.message == failed.message);
            let files: Vec<&str> = same.map(|other| other.file.as_str()).collect();
            terminal::say(format!(
                "\n{}\n\nnot built: {}",
                failed.message,
                files.join(", ")
            ));
        }
    }
}

fn table(report: &BuildReport) -> String {
    let row = |built: &Built| {
        let native = |show: &dyn Fn(Native) -> String| built.native.map_or("-".to_owned(), show);
        [
            built.route.clone(),
            built.language.to_owned(),
            terminal::size(built.bytes),
            native(&|native| terminal::size(native.bytes)),
            if built.changed { "new" } else { "same" }.to_owned(),
            took(built.duration),
            native(&|native| took(native.duration)),
        ]
    };
    let rows: Vec<_> = report.built.iter().map(row).collect();
    let head = [
        "route",
        "language",
        "size",
        "machine code",
        "module",
        "made in",
        "wasmtime",
    ];
    terminal::table(head, &rows)
}

/// No time at all means that it had been compiled before.
fn took(time: Duration) -> String {
    if time.is_zero() {
        "cached".to_owned()
    } else {
        terminal::span(time)
    }
}
