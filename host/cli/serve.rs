//! `wisr serve`: serves a folder of modules.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::ensure;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{prerender, source_tree, terminal};
use crate::app::App;
use crate::config::{Config, Overrides, address};

/// Serve a site: the folder that `wisr build` makes, or any folder with `pages/*.wasm`.
///
/// Drop a module into SITE/pages and its route is live; replace it and readers get the new one
/// without a failed request; what cannot be loaded changes nothing and is told as an incident on
/// the admin port. SITE/wisr.toml configures it: a change is taken up within seconds, or at once
/// with SIGHUP, and the log says what of it needs a restart.
///
/// SIGTERM and Ctrl-C let requests in flight finish; a second one ends them too.
///
/// Exit codes: 0 stopped by a signal, 1 failed or cut short by a second signal, 2 usage.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The site's folder.
    #[arg(default_value = ".")]
    pub site: PathBuf,
    /// What wins over the environment and the file.
    #[command(flatten)]
    pub flags: Flags,
}

/// What the command line says over the environment and `wisr.toml`.
#[derive(Debug, Args)]
pub struct Flags {
    /// The address of the site; port 0 picks a free one [default: 127.0.0.1:3000].
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub listen: Option<SocketAddr>,
    /// The address of the admin port, for operators [default: 127.0.0.1:3001].
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub admin: Option<SocketAddr>,
    /// The token of the revalidate endpoint; better set WISR_TOKEN, or `token` of `[revalidate]` in
    /// wisr.toml, since others on this machine can read a command line.
    #[arg(long)]
    pub token: Option<String>,
}

impl Flags {
    /// What they say, over the environment of this process.
    pub(super) fn over_environment(self) -> Overrides {
        Overrides {
            listen: self.listen,
            admin: self.admin,
            token: self.token,
            ..Overrides::of_process()
        }
    }
}

/// Runs `wisr serve` until SIGTERM or Ctrl-C.
///
/// # Errors
/// What keeps the server from starting.
pub async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    ensure!(
        args.site.is_dir(),
        "no folder `{}`: `wisr build SRC -o {}` makes one",
        args.site.display(),
        args.site.display()
    );
    let overrides = args.flags.over_environment();
    // From the start: who hangs up while the server starts does not end it.
    let hangup = signal(SignalKind::hangup())?;
    let stop = stop_signal()?;
    tokio::pin!(stop);
    let config = Config::load(&args.site, &overrides)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let starting = App::build(config, None);
    let app = tokio::select! {
        app = starting => app?,
        () = &mut stop => return Ok(ExitCode::SUCCESS),
    };
    announce(&app);
    let pages = args.site.join("pages");
    if !pages.is_dir() {
        terminal::say(waiting(&args.site, &pages));
    }
    let shown = tokio::spawn(prerender::follow_all(app.passes()));
    app.run(stop, Some(hangup)).await?;
    shown.abort();
    Ok(ExitCode::SUCCESS)
}

/// What a server without its folder of modules waits for.
fn waiting(site: &Path, pages: &Path) -> String {
    let advice = source_tree(site).map(|advice| format!(" ({advice})"));
    format!(
        "no folder `{}` yet: drop modules into it, now or later, and their routes are live{}",
        pages.display(),
        advice.unwrap_or_default()
    )
}

/// Prints where the server listens: the two lines that scripts wait for.
pub(super) fn announce(app: &App) {
    terminal::data(format!("wisr: site on http://{}", app.site_addr()));
    terminal::data(format!("wisr: admin on http://{}", app.admin_addr()));
}

/// Ends with SIGTERM or SIGINT; the second of them ends the process, whatever it is at.
pub(super) fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut next = async move || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(async move {
        next().await;
        tokio::spawn(async move {
            next().await;
            terminal::say("stopped at once by a second signal: what was in flight is cut off");
            // As kill -9 does: nothing on disk needs more than that.
            std::process::exit(1);
        });
    })
}
