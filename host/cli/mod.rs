//! `Cli`: the commands, their help, and how they end.
//!
//! Exit codes: 0 all went well, 1 something failed, 2 the command line was wrong; 3 and 130 are
//! those of `wisr prerender`.

pub mod admin;
pub mod build;
mod call;
pub mod check;
mod compile;
pub mod content;
pub mod dev;
pub mod prerender;
pub mod releases;
pub mod revalidate;
pub mod rollback;
pub mod routes;
pub mod serve;
mod terminal;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::app;
use crate::guest::Compiler;

/// Serve pages compiled to WebAssembly with Incremental Static Regeneration.
///
/// Exit codes: 0 all went well, 1 something failed, 2 the command line was wrong. Of prerender: 3
/// some pages could not be made, 130 stopped by a signal.
#[derive(Debug, Parser)]
#[command(
    name = "wisr",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    after_help = ENVIRONMENT
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What is logged where the failures are listed at the end, not each as it happens.
const QUIET_LOG: &str = "error";

/// What is logged by default: `notify` warns of what the folder's poll makes up for, `h2` of each
/// client that breaks the protocol, as often as it connects.
const LOG: &str = "wisr=info,warn,notify=error,h2=error";

/// What is not logged unless it is asked for by name: these write a line for each mistake that a
/// guest makes in a call, as often as it makes one.
const QUIET: &str = "wasmtime_wasi=off,wasmtime_wasi_http=off";

const ENVIRONMENT: &str = "\
Environment:
  WISR_TOKEN        The token of the revalidate endpoint, for dev, serve and revalidate
  WISR_ADMIN_TOKEN  The token of the admin port, for releases and rollback
  WISR_DEBUG_CACHE  1 logs each request for a page with its verdict (hit, miss, stale) and the
                    reason, and each generation with its cause
  WISR_LOG          What is logged to stderr, such as warn or wisr=debug [default: wisr=info,warn;
                    of prerender: error]";

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Asked(Asked),
    #[command(name = Compiler::COMMAND, hide = true)]
    Compile(compile::CompileArgs),
}

/// What a person may ask for.
#[derive(Debug, Subcommand)]
enum Asked {
    Dev(dev::DevArgs),
    Build(build::BuildArgs),
    Prerender(prerender::PrerenderArgs),
    Serve(serve::ServeArgs),
    Content(content::ContentArgs),
    Check(check::CheckArgs),
    Routes(routes::RoutesArgs),
    Revalidate(revalidate::RevalidateArgs),
    Releases(releases::ReleasesArgs),
    Rollback(rollback::RollbackArgs),
}

impl Asked {
    /// What it logs by default.
    fn log(&self) -> &'static str {
        match self {
            Asked::Prerender(_)
            | Asked::Build(build::BuildArgs {
                prerender: true, ..
            }) => QUIET_LOG,
            _ => LOG,
        }
    }
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        let asked = match self.command {
            // Before a thread is started that would share its limits.
            Command::Compile(args) => return compile::run(&args),
            Command::Asked(asked) => asked,
        };
        init_logging(asked.log());
        // Modules are tried and asked for their paths here: a server's doors have their own threads.
        let runtime = match tokio::runtime::Builder::new_multi_thread()
            .thread_name("background")
            .on_thread_start(app::lower_priority)
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => return fail(&anyhow::anyhow!(error).context("cannot start threads")),
        };
        let ended = runtime.block_on(async {
            match asked {
                Asked::Dev(args) => dev::run(args).await,
                Asked::Build(args) => build::run(args).await,
                Asked::Prerender(args) => prerender::run(args).await,
                Asked::Serve(args) => serve::run(args).await,
                Asked::Content(args) => content::run(args).await,
                Asked::Check(args) => check::run(args).await,
                Asked::Routes(args) => routes::run(args).await,
                Asked::Revalidate(args) => revalidate::run(args).await,
                Asked::Releases(args) => releases::run(args).await,
                Asked::Rollback(args) => rollback::run(args).await,
            }
        });
        // Reading a folder or looking up a name cannot be interrupted: whoever stops does not wait.
        runtime.shutdown_background();
        ended.unwrap_or_else(|error| fail(&error))
    }
}

/// What to do with a folder that holds sources where a site is expected; none if it does not.
fn source_tree(folder: &Path) -> Option<String> {
    let name = folder.display();
    folder.join("Cargo.toml").is_file().then(|| {
        format!(
            "`{name}` is a source tree: `wisr build {name} -o SITE` makes a site of it, `wisr dev {name}` builds and \
             serves it"
        )
    })
}

/// Asks for a line for each look into the cache.
const DEBUG_CACHE: &str = "WISR_DEBUG_CACHE";

/// Logs go to stderr, as `WISR_LOG` says; the default shows what needs attention.
fn init_logging(default: &str) {
    let asked = std::env::var("WISR_LOG").ok();
    let debug_cache = std::env::var(DEBUG_CACHE).is_ok_and(|value| !matches!(&*value, "" | "0"));
    let more = match debug_cache {
        true => ",wisr::cache=debug",
        false => "",
    };
    let filter = |asked: &str| EnvFilter::try_new(format!("{QUIET},{asked}{more}"));
    let filter = filter(asked.as_deref().unwrap_or(default)).unwrap_or_else(|error| {
        terminal::say(format!("warning: WISR_LOG is not used: {error}"));
        EnvFilter::new(format!("{QUIET},{default}{more}"))
    });
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| terminal::Talk)
        .with_ansi(terminal)
        .with_target(false);
    if terminal {
        log.compact().init()
    } else {
        log.init()
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the last word of a command that failed"
)]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
