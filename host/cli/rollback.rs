//! `wisr rollback`: the way back, at once.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::admin::AdminArgs;
use super::{releases, terminal};

/// Have a running server go back to an earlier release, at once.
///
/// The modules of that release serve again, as a new release, and so do the pages that they made,
/// where these are still there. It holds until the folder of pages changes again, also over
/// restarts; then the whole folder is served as it is. Without a number, it goes back to the
/// release before the current one; done twice, that is there and back.
///
/// Exit codes: 0 done, 1 the server refused and nothing has changed, 2 nothing was tried: usage, no
/// server there, a wrong token.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The release, as `wisr releases` numbers them [default: the one before the current].
    #[arg(value_name = "ID")]
    id: Option<u64>,
    #[command(flatten)]
    server: AdminArgs,
}

/// Runs `wisr rollback`.
///
/// # Errors
/// None: what goes wrong is an exit code.
pub async fn run(args: RollbackArgs) -> anyhow::Result<ExitCode> {
    let body = args.id.map_or(json!({}), |id| json!({ "id": id }));
    let path = "/api/releases/rollback";
    Ok(args.server.ask(path, Some(&body), show).await)
}

fn show(answer: &Value) {
    let release = &answer["release"];
    let (id, how) = (&release["id"], releases::how(release));
    terminal::data(format!("release {id}: {how}"));
    terminal::say("it holds until the folder of pages changes");
}
