//! `wisr health`: asks a running server whether it is well, for what starts containers.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http::Uri;

use super::call::{Call, Listener, call, server, unreachable};
use super::terminal;

/// How long an answer may take; whoever asks, asks again.
const PATIENCE: Duration = Duration::from_secs(2);

/// Ask a running server whether it is ready for readers, as the health check of a container does.
///
/// It is the same as `/readyz` of the admin port, for images that have no curl; no token is needed.
///
/// Exit codes: 0 it is, 1 it is not, or nobody answers, 2 usage.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// The server's admin port [default: WISR_SERVER_ADMIN, else http://127.0.0.1:3001].
    #[arg(long, value_name = "URL", value_parser = server)]
    pub admin: Option<Uri>,
    /// Ask only whether it is alive (`/livez`), as soon as it listens.
    #[arg(long)]
    pub live: bool,
}

/// Runs `wisr health`.
///
/// # Errors
/// When nobody answers.
pub async fn run(args: HealthArgs) -> anyhow::Result<ExitCode> {
    let server = &Listener::Admin.address(args.admin.as_ref())?;
    let asked = call(Call {
        server,
        path: if args.live { "/livez" } else { "/readyz" },
        token: None,
        body: None,
    });
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    let answer = answer.unwrap_or_else(|_| anyhow::bail!("no answer within {PATIENCE:?}"));
    let (status, body) = answer.map_err(|error| anyhow::anyhow!(unreachable(server, &error)))?;
    terminal::data(String::from_utf8_lossy(&body).trim_end());
    Ok(ExitCode::from(u8::from(!status.is_success())))
}
