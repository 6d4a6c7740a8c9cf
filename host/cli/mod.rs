//! `Cli`: the commands, their help, and how they end.
//!
//! Exit codes: 0 all went well, 1 something failed, 2 the command line was wrong; 3 and 130 are
//! those of `wisr prerender`.

pub mod admin;
pub mod build;
mod call;
pub mod check;
mod compile;
pub mod config;
pub mod content;
pub mod dev;
pub mod health;
pub mod new;
pub mod prerender;
pub mod releases;
pub mod revalidate;
pub mod rollback;
pub mod routes;
pub mod serve;
mod shadow;
mod symbols;
mod terminal;
mod trial;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::app;
use crate::config::{DEFAULT_FILTER, Environment, LogFormat, Logging};
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

/// What is logged to an author, who is told of builds, routes and requests without the log.
const DEV_LOG: &str = "wisr=info,wisr::fetch=warn,wisr::release=warn,wisr::app::pass=warn,\
                       wisr::http::files=warn,warn";

/// What is not logged unless it is asked for by name: wasmtime writes a line for each mistake that
/// a guest makes in a call, as often as it makes one, `h2` for each client that breaks the protocol,
/// and `notify` of what the folder's poll makes up for.
const QUIET: &str = "wasmtime_wasi=off,wasmtime_wasi_http=off,notify=error,h2=error";

const ENVIRONMENT: &str = "\
Environment:
  WISR_TOKEN        The token of the revalidate endpoint, for dev, serve and revalidate
  WISR_ADMIN_TOKEN  The token of the admin port, for serve, releases and rollback
  WISR_DRAFT_TOKEN  The token of draft mode, for dev and serve
  WISR_WEBHOOK_NAME_SECRET
                    The secret of [webhooks.name], for dev and serve
  WISR_DEBUG_CACHE  1 logs each request for a page with its verdict (hit, miss, stale) and the
                    reason, and each generation with its cause
  WISR_LOG          What is logged to stderr, such as warn or wisr=debug [default: wisr=info,warn;
                    of dev less, of prerender error]
  WISR_TABLE_KEY    Any key of wisr.toml: WISR_STORE_MEMORY=1GiB is `memory` of `[store]`
  WISR_…_FILE       The name of a file that holds the value, as for WISR_TOKEN_FILE

`wisr config` shows what is in force and where it comes from.";

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Asked(Asked),
    #[command(name = Compiler::COMMAND, hide = true)]
    Compile(compile::CompileArgs),
    #[command(name = Compiler::TRIAL, hide = true)]
    Trial(trial::TrialArgs),
    #[command(name = Compiler::SYMBOLS, hide = true)]
    Symbols(symbols::SymbolArgs),
}

/// What a person may ask for.
#[derive(Debug, Subcommand)]
enum Asked {
    New(new::NewArgs),
    Dev(dev::DevArgs),
    Build(build::BuildArgs),
    Prerender(prerender::PrerenderArgs),
    Serve(serve::ServeArgs),
    Content(content::ContentArgs),
    Check(check::CheckArgs),
    Config(config::ConfigArgs),
    Routes(routes::RoutesArgs),
    Revalidate(revalidate::RevalidateArgs),
    Health(health::HealthArgs),
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
            Asked::Dev(_) => DEV_LOG,
            _ => DEFAULT_FILTER,
        }
    }

    /// Whether it makes pages, for which it needs a server's threads.
    fn serves(&self) -> bool {
        matches!(self, Asked::Serve(_) | Asked::Prerender(_) | Asked::Dev(_))
    }

    /// The folder whose `wisr.toml` says how to log.
    fn site(&self) -> Option<&Path> {
        match self {
            Asked::Serve(args) => Some(&args.site),
            Asked::Prerender(args) => Some(&args.site),
            Asked::Dev(args) => Some(&args.src),
            Asked::Build(args) => Some(&args.src),
            _ => None,
        }
    }
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        let asked = match self.command {
            // Before a thread is started that would share its limits.
            Command::Compile(args) => return compile::run(&args),
            Command::Trial(args) => return trial::run(&args),
            Command::Symbols(args) => return symbols::run(&args),
            Command::Asked(asked) => asked,
        };
        init_logging(&asked);
        if asked.serves()
            && let Err(error) = app::room_for_threads()
        {
            return fail(&error);
        }
        // Modules are tried and asked for their paths here: a server's doors have their own threads.
        let runtime = match tokio::runtime::Builder::new_multi_thread()
            .thread_name("background")
            .on_thread_start(app::lower_priority)
            .enable_all()
            .thread_keep_alive(app::THREADS_STAY)
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => return fail(&anyhow::anyhow!(error).context("cannot start threads")),
        };
        // There is one from now on, also when no more can be had.
        runtime.spawn_blocking(|| ());
        let ended = runtime.block_on(async {
            app::outlive_large_files();
            match asked {
                Asked::New(args) => new::run(args).await,
                Asked::Dev(args) => dev::run(args).await,
                Asked::Build(args) => build::run(args).await,
                Asked::Prerender(args) => prerender::run(args).await,
                Asked::Serve(args) => serve::run(args).await,
                Asked::Content(args) => content::run(args).await,
                Asked::Check(args) => check::run(args).await,
                Asked::Config(args) => config::run(args),
                Asked::Routes(args) => routes::run(args).await,
                Asked::Revalidate(args) => revalidate::run(args).await,
                Asked::Health(args) => health::run(args).await,
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
    build::has_sources(folder).then(|| {
        format!(
            "`{name}` is a source tree: `wisr build {name} -o SITE` makes a site of it, `wisr dev {name}` builds and \
             serves it"
        )
    })
}

/// Asks for a line for each look into the cache.
const DEBUG_CACHE: &str = "WISR_DEBUG_CACHE";

/// Logs go to stderr, as `[log]` and the environment say; the default shows what needs attention.
fn init_logging(asked: &Asked) {
    let logging = Logging::of(asked.site(), &Environment::of_process());
    let default = asked.log();
    let debug_cache = std::env::var(DEBUG_CACHE).is_ok_and(|value| !matches!(&*value, "" | "0"));
    let more = match debug_cache {
        true => ",wisr::cache=debug",
        false => "",
    };
    let filter = |asked: &str| EnvFilter::try_new(format!("{QUIET},{asked}{more}"));
    let wanted = filter(logging.filter.as_deref().unwrap_or(default));
    let (filter, mistake) = match wanted {
        Ok(filter) => (filter, None),
        Err(error) => {
            let filter = EnvFilter::new(format!("{QUIET},{default}{more}"));
            (filter, Some(error))
        }
    };
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // What a server says is mostly read by programs, what other commands say by who gave them.
    let is_server = matches!(asked, Asked::Serve(_));
    let format = logging.format.unwrap_or(match terminal || !is_server {
        true => LogFormat::Human,
        false => LogFormat::Json,
    });
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| terminal::Talk);
    match format {
        LogFormat::Json => {
            terminal::talk_json();
            log.json().flatten_event(true).init();
        }
        LogFormat::Human if terminal => log.with_target(false).compact().init(),
        LogFormat::Human => log.with_ansi(false).with_target(false).init(),
    }
    if let Some(error) = mistake {
        tracing::warn!("WISR_LOG (`log.filter`) is not used: {error}");
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    terminal::fail(format!("{error:#}"));
    ExitCode::FAILURE
}
