//! `wisr releases`: what a running server served lately, and what changed with each release.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use serde_json::Value;

use super::admin::AdminArgs;
use super::terminal;
use crate::page::plural;

/// List the latest releases of a running server, newest first.
///
/// Each change of the folder of pages makes a release; so do a rollback, and the return of a route
/// from a module that did nothing but fail. The last ten are kept with their modules, also over
/// restarts: `wisr rollback` goes back to one of them.
///
/// Exit codes: 0 listed, 1 the server refused, 2 nothing was tried: usage, no server there, a wrong
/// token.
#[derive(Debug, Args)]
pub struct ReleasesArgs {
    #[command(flatten)]
    server: AdminArgs,
}

/// Changed files that are named.
const NAMED: usize = 4;

/// Runs `wisr releases`.
///
/// # Errors
/// None: what goes wrong is an exit code.
pub async fn run(args: ReleasesArgs) -> anyhow::Result<ExitCode> {
    Ok(args.server.ask("/api/releases", None, show).await)
}

fn show(history: &Value) {
    let releases = history["releases"].as_array();
    let releases = releases.map(Vec::as_slice).unwrap_or_default();
    let before = releases.iter().skip(1).map(Some).chain([None]);
    let rows: Vec<[String; 4]> = releases
        .iter()
        .zip(before)
        .map(|(release, before)| row(release, before, &history["current"]))
        .collect();
    terminal::data(terminal::table(
        ["release", "since", "how", "changes"],
        &rows,
    ));
    if history["held"] == true {
        terminal::say("a rollback holds: what lies in the folder is served when it changes again");
    }
    for file in history["fallen"].as_object().into_iter().flatten() {
        terminal::say(format!(
            "{}: the module in the folder did nothing but fail, and its route is back to the one \
             before; drop a mended one in",
            file.0
        ));
    }
}

fn row(release: &Value, before: Option<&Value>, current: &Value) -> [String; 4] {
    let id = &release["id"];
    [
        format!("{id}{}", if id == current { " *" } else { "" }),
        since(release),
        how(release),
        changes(release, before),
    ]
}

/// When it took over, in the form of RFC 3339.
fn since(release: &Value) -> String {
    let at = Duration::from_millis(release["at"].as_u64().unwrap_or(0));
    let at = UNIX_EPOCH.checked_add(at).unwrap_or(UNIX_EPOCH);
    humantime::format_rfc3339_seconds(at).to_string()
}

/// What made a release.
pub(super) fn how(release: &Value) -> String {
    match (release["how"].as_str(), release["of"].as_u64()) {
        (Some(how), Some(of)) => format!("{how} to {of}"),
        (how, _) => how.unwrap_or("-").to_owned(),
    }
}

/// What is there, gone and other than in the release before.
fn changes(release: &Value, before: Option<&Value>) -> String {
    let files = |release: &Value| -> BTreeMap<String, Value> {
        let files = release["files"].as_object().into_iter().flatten();
        files
            .map(|(file, digest)| (file.clone(), digest.clone()))
            .collect()
    };
    let new = files(release);
    let Some(old) = before.map(files) else {
        let count = new.len();
        return format!("{count} module{}", plural(count));
    };
    let changed = new.iter().filter_map(|(file, digest)| match old.get(file) {
        None => Some(format!("+{file}")),
        Some(before) if before != digest => Some(format!("~{file}")),
        Some(_) => None,
    });
    let gone = old.keys().filter(|file| !new.contains_key(*file));
    let mut names: Vec<String> = changed.chain(gone.map(|file| format!("-{file}"))).collect();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_release_tells_what_changed_with_it() {
        let one = json!({"id": 1, "how": "folder", "files": {"a": "1", "b": "1", "c": "1"}});
        let two = json!({"id": 2, "how": "rollback", "of": 1, "at": 1_000, "files": {"a": "2", "b": "1", "d": "1"}});
        assert_eq!(changes(&one, None), "3 modules");
        assert_eq!(changes(&two, Some(&one)), "~a +d -c");
        let many: BTreeMap<_, _> = (0..9).map(|n| (format!("{n}"), "1")).collect();
        let many = json!({ "files": many });
        assert_eq!(changes(&many, Some(&json!({}))), "+0 +1 +2 +3 and 5 more");
        let expected = ["2 *", "1970-01-01T00:00:01Z", "rollback to 1", "~a +d -c"];
        assert_eq!(row(&two, Some(&one), &json!(2)), expected);
        assert_eq!(row(&one, None, &json!(2))[0], "1");
    }
}
