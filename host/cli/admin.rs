//! `AdminArgs`: the admin port of a running server, asked from the shell.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http::{StatusCode, Uri};
use serde_json::Value;

use super::call::{Call, Listener, call, server, token, unreachable};
use super::terminal;
use crate::config::ADMIN_TOKEN_VARIABLE;

/// The exit code when nothing was tried.
const NOTHING_TRIED: u8 = 2;

/// How long an answer may take: a rollback loads modules, and compiles those whose machine code is
/// not kept any more.
const PATIENCE: Duration = Duration::from_secs(120);

/// Which server is asked, and how the answer is shown.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// The server's admin port [default: WISR_SERVER_ADMIN, else http://127.0.0.1:3001].
    #[arg(long, value_name = "URL", value_parser = server)]
    pub admin: Option<Uri>,
    /// The token of the admin port, if it has one [default: WISR_ADMIN_TOKEN, else the file that
    /// WISR_ADMIN_TOKEN_FILE names].
    #[arg(long)]
    pub token: Option<String>,
    /// Print the server's answer as it is.
    #[arg(long)]
    pub json: bool,
}

impl AdminArgs {
    /// Asks, by POST if there is a body, and has the answer shown: `show` gets one that the server
    /// is content with.
    pub(super) async fn ask(
        &self,
        path: &str,
        body: Option<&Value>,
        show: impl FnOnce(&Value),
    ) -> ExitCode {
        let nothing_tried = |reason: String| {
            terminal::say(format!("error: {reason}"));
            ExitCode::from(NOTHING_TRIED)
        };
        let server = match Listener::Admin.address(self.admin.as_ref()) {
            Ok(server) => server,
            Err(error) => return nothing_tried(format!("{error:#}")),
        };
        let token = match token(self.token.as_deref(), ADMIN_TOKEN_VARIABLE) {
            Ok(token) => token,
            Err(error) => return nothing_tried(format!("{error:#}")),
        };
        let asked = call(Call {
            server: &server,
            path,
            token: token.as_deref(),
            body,
        });
        let answer = tokio::time::timeout(PATIENCE, asked).await;
        let (status, bytes) = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return nothing_tried(unreachable(&server, &error)),
            Err(_) => {
                let seconds = PATIENCE.as_secs();
                return nothing_tried(format!("{server} did not answer within {seconds} s"));
            }
        };
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status == StatusCode::UNAUTHORIZED {
            return nothing_tried(
                "the admin port wants its token, `server.admin-token` of the server's wisr.toml: give \
                 it as --token, WISR_ADMIN_TOKEN or WISR_ADMIN_TOKEN_FILE"
                    .to_owned(),
            );
        }
        if self.json && !answer.is_null() {
            terminal::data(String::from_utf8_lossy(&bytes).trim_end());
        } else if status.is_success() && answer.is_object() {
            show(&answer);
        }
        if status.is_success() && answer.is_object() {
            return ExitCode::SUCCESS;
        }
        let unknown = "this is not wisr's answer; is it the admin port?";
        let said = answer["message"].as_str().unwrap_or(unknown);
        terminal::say(format!("error: {said} ({})", status.as_u16()));
        ExitCode::FAILURE
    }
}
