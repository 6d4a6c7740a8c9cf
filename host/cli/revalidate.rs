//! `wisr revalidate`: the on-demand call from the shell.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use http::{StatusCode, Uri};
use serde_json::{Value, json};

use super::call::{Call, Listener, call, server, token};
use super::terminal;
use crate::config::TOKEN_VARIABLE;
use crate::page::plural;

/// Have a running server regenerate, mark stale or remove pages.
///
/// Example: `WISR_TOKEN=… wisr revalidate --path /posts/1 --path /`
///
/// Exit codes: 0 everything was done, 1 something failed (readers go on getting the last good pages),
/// 2 nothing was tried: usage, no server there, a wrong token.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["paths", "tags"]))]
pub struct RevalidateArgs {
    /// The server [default: WISR_SERVER_LISTEN, else http://127.0.0.1:3000].
    #[arg(long, value_name = "URL", value_parser = server)]
    pub url: Option<Uri>,
    /// A page's path, as in the browser; may be given many times.
    #[arg(long = "path", value_name = "PATH")]
    pub paths: Vec<String>,
    /// A tag: all pages that carry it; may be given many times.
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// What to do [default: regenerate for paths, stale for tags].
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// Leave out paths that no reader has asked for yet.
    #[arg(long)]
    pub only_generated: bool,
    /// The server's revalidate token [default: WISR_TOKEN, else the file that WISR_TOKEN_FILE
    /// names].
    #[arg(long)]
    pub token: Option<String>,
    /// How long to wait for the answer, in seconds. Regenerating takes as long as the pages take.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// Print the server's answer as it is.
    #[arg(long)]
    pub json: bool,
}

/// What is done to a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Make it anew and wait for it: the next reader gets the new page.
    Regenerate,
    /// Mark it: the next reader still gets the old page, and has the new one made.
    Stale,
    /// Remove it: the next reader waits for the new page.
    Purge,
}

impl Mode {
    /// The word in the request.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Regenerate => "regenerate",
            Mode::Stale => "stale",
            Mode::Purge => "purge",
        }
    }
}

/// The exit code when nothing was tried.
const NOTHING_TRIED: u8 = 2;

/// Runs `wisr revalidate`.
///
/// # Errors
/// An answer that cannot be printed. A server that cannot be reached is exit code 2.
pub async fn run(args: RevalidateArgs) -> anyhow::Result<ExitCode> {
    let (status, bytes) = match ask(&args).await {
        Ok(answer) => answer,
        Err(error) => {
            terminal::say(format!("error: {error:#}"));
            return Ok(ExitCode::from(NOTHING_TRIED));
        }
    };
    let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if args.json {
        terminal::data(String::from_utf8_lossy(&bytes).trim_end());
    } else {
        show(status, &answer);
    }
    Ok(ExitCode::from(match answer["results"].is_array() {
        true => u8::from(!status.is_success()),
        false => NOTHING_TRIED,
    }))
}

async fn ask(args: &RevalidateArgs) -> anyhow::Result<(StatusCode, Bytes)> {
    let token = token(args.token.as_deref(), TOKEN_VARIABLE)?.with_context(|| {
        format!("no token: give the server's as --token, {TOKEN_VARIABLE} or {TOKEN_VARIABLE}_FILE")
    })?;
    let server = Listener::Public.address(args.url.as_ref())?;
    let body = body(args);
    let asked = call(Call {
        server: &server,
        path: "/api/revalidate",
        token: Some(&token),
        body: Some(&body),
    });
    match tokio::time::timeout(Duration::from_secs(args.timeout), asked).await {
        Ok(answer) => answer.with_context(|| format!("cannot reach {server}")),
        Err(_) => bail!(
            "no answer from {server} within {} s: it may still be regenerating, `--timeout` sets how long to wait",
            args.timeout
        ),
    }
}

fn body(args: &RevalidateArgs) -> Value {
    let mut body = json!({
        "paths": args.paths,
        "tags": args.tags,
        "onlyGenerated": args.only_generated,
    });
    if let Some(mode) = args.mode {
        body["mode"] = mode.as_str().into();
    }
    body
}

fn show(status: StatusCode, answer: &Value) {
    let results = answer["results"].as_array();
    for result in results.into_iter().flatten() {
        terminal::data(line(result));
    }
    if !status.is_success() || results.is_none() {
        terminal::say(format!("error: {}", reason(status, answer)));
    }
}

/// One result: what it is about, how it ended, and why.
fn line(result: &Value) -> String {
    let text = |key: &str| result[key].as_str();
    let about = match (text("path"), text("tag")) {
        (Some(path), _) => path.to_owned(),
        (None, Some(tag)) => format!("tag {tag}"),
        (None, None) => "-".to_owned(),
    };
    let status = text("status").unwrap_or("done");
    let message = text("message").map(|message| format!(": {message}"));
    let counted = counted(result);
    format!("{about}  {status}{counted}{}", message.unwrap_or_default())
}

/// How many pages a result was about beside the one that is named.
fn counted(result: &Value) -> String {
    let counts = [
        ("pages", "", "page"),
        ("pagesAtLeast", "at least ", "page"),
        ("variants", "", "query variant"),
        ("variantsAtLeast", "at least ", "query variant"),
    ];
    let told = counts.into_iter().find_map(|(key, at_least, what)| {
        let count = result[key].as_u64()?;
        Some(format!(" ({at_least}{count} {what}{})", plural(count)))
    });
    told.unwrap_or_default()
}

fn reason(status: StatusCode, answer: &Value) -> String {
    let said = answer["message"]
        .as_str()
        .unwrap_or("this is not wisr's answer");
    match status {
        StatusCode::UNAUTHORIZED => {
            format!(
                "{said}: give the server's token as --token or {TOKEN_VARIABLE}; the server has it from its own \
                 {TOKEN_VARIABLE}, else from `revalidate.token` in its wisr.toml"
            )
        }
        StatusCode::NOT_FOUND if answer["results"].is_null() => {
            format!(
                "{said} (404): is this wisr, and has it a token, in {TOKEN_VARIABLE} or as `revalidate.token` in \
                 its wisr.toml?"
            )
        }
        _ => format!("{said} ({})", status.as_u16()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: RevalidateArgs,
    }

    fn parse(words: &[&str]) -> Result<RevalidateArgs, clap::Error> {
        let words = ["x", "--token", "t"].iter().chain(words);
        Cli::try_parse_from(words).map(|cli| cli.args)
    }

    #[test]
    fn the_body_says_what_was_asked() {
        let args = parse(&["--path", "/a", "--path", "/b", "--tag", "t"]).unwrap();
        let expected = json!({"paths": ["/a", "/b"], "tags": ["t"], "onlyGenerated": false});
        assert_eq!(body(&args), expected);
        let args = parse(&["--path", "/a", "--mode", "purge", "--only-generated"]).unwrap();
        let expected = json!({"paths": ["/a"], "tags": [], "onlyGenerated": true, "mode": "purge"});
        assert_eq!(body(&args), expected);
    }

    #[test]
    fn nothing_to_do_is_a_usage_error() {
        assert_eq!(parse(&[]).unwrap_err().exit_code(), 2);
        assert_eq!(
            parse(&["--path", "/", "--mode", "x"])
                .unwrap_err()
                .exit_code(),
            2
        );
    }

    #[test]
    fn results_say_how_they_ended() {
        let failed = json!({"path": "/a", "status": "failed", "message": "it trapped"});
        assert_eq!(line(&failed), "/a  failed: it trapped");
        assert_eq!(
            line(&json!({"tag": "t", "status": "stale"})),
            "tag t  stale"
        );
    }

    #[test]
    fn a_wrong_token_names_the_fix() {
        let reason = reason(
            StatusCode::UNAUTHORIZED,
            &json!({"message": "Invalid token"}),
        );
        assert!(
            reason.contains("WISR_TOKEN") && reason.contains("revalidate.token"),
            "{reason}"
        );
    }
}
