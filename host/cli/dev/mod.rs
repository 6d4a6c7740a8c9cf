//! `wisr dev`: build, serve, watch, build again, until the author stops it.

mod session;
mod watch;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;
use tokio::sync::watch as state;

use super::build::{self, Plan, Site};
use super::content::{self, Library};
use super::{serve, terminal};
use crate::app::App;
use crate::config::{Config, Overrides, TOKEN_VARIABLE, address};
use crate::http::{self, DevState};
use session::Session;
use watch::Watch;

/// Build a source tree, serve it, and keep up with every change.
///
/// Saving a file rebuilds the pages that depend on it; the running server swaps them without losing a request,
/// and the browser reloads. What does not compile is shown on the terminal and in the browser, over the page
/// that worked last. With `[dev] content = "content"` in wisr.toml that folder of Markdown is served as the
/// content API at the address of `settings.content`.
///
/// The site is built into SRC/.wisr/dev, which may be deleted.
///
/// Exit codes: 0 stopped by a signal, 1 failed, 2 usage.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// The source tree.
    #[arg(default_value = ".")]
    pub src: PathBuf,
    /// The address of the site; port 0 picks a free one [default: 127.0.0.1:3000].
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub listen: Option<SocketAddr>,
    /// The address of the admin port, for operators [default: 127.0.0.1:3001].
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub admin: Option<SocketAddr>,
    /// The token of the revalidate endpoint [default: WISR_TOKEN, else `token` of `[revalidate]` in
    /// wisr.toml, else a new one].
    #[arg(long)]
    pub token: Option<String>,
    /// A folder of Markdown to serve as the content API [default: `content` of `[dev]` in wisr.toml].
    #[arg(long, value_name = "DIR")]
    pub content: Option<PathBuf>,
}

/// Where the site is built, below the source tree.
const OUT: &str = ".wisr/dev";

/// Where the content API listens when `settings.content` names no address.
const CONTENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3002);

/// Runs `wisr dev` until Ctrl-C.
///
/// # Errors
/// What keeps it from starting. Pages that do not compile keep nothing from starting.
pub async fn run(args: DevArgs) -> anyhow::Result<ExitCode> {
    let src = fs::canonicalize(&args.src).with_context(|| build::no_tree(&args.src))?;
    let out = src.join(OUT);
    let plan = Plan::discover(Site {
        src: src.clone(),
        out: out.clone(),
    })
    .await?;
    build::copy_files(&plan, build::Profile::Dev)?;
    // The server watches it from the start, before the first page is built.
    fs::create_dir_all(out.join("pages"))
        .with_context(|| format!("cannot make `{}`", out.display()))?;
    let overrides = Overrides {
        listen: args.listen,
        admin: args.admin,
        token: args.token.clone(),
        dev: true,
        root: Some(src.clone()),
        ..Overrides::of_process()
    };
    let (config, made) = with_token(&out, overrides)?;
    let content = content_folder(&src, &args, &config);
    let api = match &content {
        Some(folder) => Some(content_api(folder, &config).await?),
        None => None,
    };
    let watch = Watch::new(&src, content.clone(), &plan.beside)?;
    let (state, seen) = state::channel(DevState::default());
    let dev = http::Dev {
        states: seen,
        say: |line| terminal::say(line),
    };
    let hosts = config.http.hosts.clone().unwrap_or_default();
    let app = App::build(config, Some(dev)).await?;
    let (stopping, stopped) = state::channel(());
    let api_address = api
        .as_ref()
        .and_then(|(_, listener)| listener.local_addr().ok());
    let companion = api.map(|(library, listener)| {
        let mut stopped = stopped.clone();
        tokio::spawn(content::serve(library, listener, hosts, async move {
            // Either way it is over: told, or the teller is gone.
            let _ = stopped.changed().await;
        }))
    });
    let mut session = Session::new(plan, state, app.releases().clone());
    session.warn();
    let stop = serve::stop_signal()?;
    tokio::pin!(stop);
    let first = tokio::select! {
        built = session.build() => Some(built?),
        () = &mut stop => None,
    };
    if first.is_some() {
        serve::announce(&app);
        let greeting = greeting(&session, &app, content.as_deref().zip(api_address), made);
        let greeting = tokio::spawn(greet(greeting, app.ready()));
        let watching = tokio::spawn(session.follow(watch));
        // Who closes the terminal ends the session.
        app.run(stop, None).await?;
        greeting.abort();
        watching.abort();
    }
    drop(stopping);
    if let Some(companion) = companion {
        companion.await.context("the content API died")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The configuration, and the token that had to be made for it. Made ones are as if given on the
/// command line: they hold when `wisr.toml` is read again.
fn with_token(site: &Path, mut overrides: Overrides) -> anyhow::Result<(Config, Option<String>)> {
    let config = Config::load(site, &overrides)?;
    if config.http.settings.token.is_some() {
        return Ok((config, None));
    }
    let made = token()?;
    overrides.token = Some(made.clone());
    Ok((Config::load(site, &overrides)?, Some(made)))
}

fn content_folder(src: &Path, args: &DevArgs, config: &Config) -> Option<PathBuf> {
    let named = config.dev.content.as_ref().map(|folder| src.join(folder));
    let folder = args.content.clone().or(named)?;
    // As the watcher sees it; a folder that is not there is told of when it is opened.
    Some(fs::canonicalize(&folder).unwrap_or(folder))
}

async fn content_api(folder: &Path, config: &Config) -> anyhow::Result<(Library, TcpListener)> {
    let library = Library::open(folder)
        .with_context(|| format!("cannot read the content in `{}`", folder.display()))?;
    let address = config.dev.content_address.unwrap_or(CONTENT);
    Ok((library, content::bind(address).await?))
}

/// 128 random bits: known only to who reads the terminal.
fn token() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).context("this machine has no random numbers")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What an author wants to know first. `made` is the token that nobody has configured.
fn greeting(
    session: &Session,
    app: &App,
    content: Option<(&Path, SocketAddr)>,
    made: Option<String>,
) -> String {
    let site = format!("http://{}", app.site_addr());
    let call = |token: &str| format!("{site}/api/revalidate?secret={token}&path=/");
    let curl = match made {
        Some(token) => format!("curl '{}'", call(&token)),
        // A token that may be in use elsewhere is not shown.
        None => format!(
            "curl \"{}\" ({TOKEN_VARIABLE}: the token that you configured)",
            call(&format!("${TOKEN_VARIABLE}"))
        ),
    };
    let api = content.map(|(folder, address)| {
        let folder = folder.display();
        format!("content:    http://{address} from {folder}\n")
    });
    format!(
        "\n{}\n\n\
         site:       {site}\n\
         admin:      http://{}\n\
         {}\
         revalidate: {curl}\n\
         watching {} (Ctrl-C stops it)",
        session.routes(),
        app.admin_addr(),
        api.unwrap_or_default(),
        session.src().display()
    )
}

/// How long the greeting waits for the first pages, lest their log lines carry it away.
const PATIENCE: Duration = Duration::from_secs(10);

async fn greet(greeting: String, mut ready: state::Receiver<bool>) {
    // However the wait ends, the author is told.
    let _ = tokio::time::timeout(PATIENCE, ready.wait_for(|ready| *ready)).await;
    terminal::say(greeting);
}
