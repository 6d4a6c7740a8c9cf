//! Section 9: what a server writes down: its log, and a line for each request.

use std::time::Duration;

use serde_json::{Value, json};

use crate::modules;
use crate::site::{Running, Site, wait_for, wisr};

/// The lines of a file in the site's folder, once there are `count`.
async fn lines(site: &Running, file: &str, count: usize) -> Vec<String> {
    let path = site.folder().join(file);
    wait_for(&format!("{count} lines of {file}"), async || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if lines.len() >= count {
            Ok(lines)
        } else {
            Err(text)
        }
    })
    .await
}

/// Where a program reads, every line is JSON: of the log, and of why a server does not start.
#[tokio::test]
async fn a_program_reads_json() {
    let site = Site::new()
        .pages(&["index", "broken"])
        .script("/broken", json!({"outcome": "panic"}))
        .env("WISR_LOG_FORMAT", "")
        .start()
        .await;
    site.get("/broken").await;
    site.until_incident("trap", "").await;
    let log = site.log();
    let mut failed = log.lines().map(|line| -> Value {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    });
    let failed = failed
        .find(|line| line["kind"] == "trap")
        .expect("the incident");
    assert_eq!(failed["level"], "WARN", "{failed}");
    assert_eq!(failed["route"], "/broken", "{failed}");
    let ended = std::process::Command::new(env!("CARGO_BIN_EXE_wisr"))
        .args(["serve", "/nowhere"])
        .output()
        .unwrap();
    let line = String::from_utf8(ended.stderr).unwrap();
    let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
    assert!(
        line["message"]
            .as_str()
            .unwrap()
            .contains("no folder `/nowhere`"),
        "{line}"
    );
}

/// The form can be chosen, by the file and by the environment, which wins.
#[tokio::test]
async fn the_form_of_the_log_can_be_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let serve = |variable: Option<&str>| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wisr"));
        command.arg("serve").arg(folder.path());
        command.args(["--listen", "192.0.2.1:1"]);
        command.envs(variable.map(|value| ("WISR_LOG_FORMAT", value)));
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    std::fs::write(folder.path().join("wisr.toml"), "[log]\nformat = \"human\"").unwrap();
    let told = serve(None);
    assert!(
        told.starts_with("error: ") && told.contains("192.0.2.1:1"),
        "{told}"
    );
    let told = serve(Some("json"));
    assert!(told.starts_with('{'), "{told}");
}

/// One line for each request, with what it got, and without what may be secret.
#[tokio::test]
async fn each_request_has_a_line_without_secrets() {
    let site = Site::new()
        .pages(&["index"])
        .module("api/hook", modules::hook())
        .file("public/file.txt", b"0123456789")
        .config("[log]\naccess = \"access.log\"\naccess-format = \"json\"")
        .start()
        .await;
    site.until("/", |page| page.verdict() == "HIT").await;
    let from = [
        ("referer", "http://other.example/?token=geheim"),
        ("user-agent", "a \"reader\""),
    ];
    site.get_with("/?x=geheim", &from).await;
    site.get("/api/revalidate?secret=geheim&path=/").await;
    site.get("/file.txt").await;
    site.get("/nowhere").await;
    let lines = lines(&site, "access.log", 5).await;
    let told: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let found = |path: &str, status: u16| {
        let is = |line: &&Value| line["path"] == path && line["status"] == status;
        told.iter()
            .rev()
            .find(is)
            .unwrap_or_else(|| panic!("{path} {status} in {told:#?}"))
    };
    let page = found("/", 200);
    for (field, wanted) in [
        ("method", json!("GET")),
        ("version", json!("HTTP/1.1")),
        ("peer", json!("127.0.0.1")),
        ("cache", json!("HIT")),
        ("referrer", json!("http://other.example/")),
        ("agent", json!("a \"reader\"")),
    ] {
        assert_eq!(page[field], wanted, "{field} of {page}");
    }
    assert!(
        page["bytes"].as_u64().unwrap() > 0 && page["seconds"].is_f64(),
        "{page}"
    );
    found("/api/revalidate", 401);
    assert_eq!(found("/file.txt", 200)["bytes"], 10);
    found("/nowhere", 404);
    assert!(!lines.concat().contains("geheim"), "{lines:#?}");
}

/// A file that log rotation moves away is begun anew, without a signal.
#[tokio::test]
async fn the_access_log_can_be_rotated() {
    let site = Site::new()
        .pages(&["index"])
        .config("[log]\naccess = \"access.log\"")
        .start()
        .await;
    site.get("/before").await;
    lines(&site, "access.log", 1).await;
    std::fs::rename(
        site.folder().join("access.log"),
        site.folder().join("access.log.1"),
    )
    .unwrap();
    wait_for("the new file", async || {
        site.get("/after").await;
        let is_there = site.folder().join("access.log").is_file();
        is_there
            .then_some(())
            .ok_or("the old one is written on".to_owned())
    })
    .await;
    site.get("/after").await;
    let new = lines(&site, "access.log", 1).await;
    let old = lines(&site, "access.log.1", 1).await;
    assert!(old[0].contains("\"GET /before HTTP/1.1\" 404 "), "{old:?}");
    assert!(
        new.iter()
            .all(|line| line.contains("\"GET /after HTTP/1.1\" 404 ")),
        "{new:?}"
    );
}

/// What waits when a server stops is still written.
#[tokio::test]
async fn no_line_is_lost_when_a_server_stops() {
    let mut site = Site::new()
        .pages(&["index"])
        .config("[log]\naccess = \"access.log\"")
        .start()
        .await;
    for _ in 0..200 {
        site.get("/nowhere").await;
    }
    site.terminate();
    assert!(site.ended().await.success());
    let text = std::fs::read_to_string(site.folder().join("access.log")).unwrap();
    assert_eq!(text.matches("/nowhere").count(), 200);
}

/// A log that cannot be opened keeps a server from starting, which says so.
#[tokio::test]
async fn a_log_that_cannot_be_written_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[log]\naccess = \"missing/access.log\"";
    std::fs::write(folder.path().join("wisr.toml"), config).unwrap();
    let arguments = [
        "serve",
        ".",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ];
    let ended = tokio::time::timeout(Duration::from_secs(60), wisr(folder.path(), &arguments));
    let ended = ended.await.expect("it ends by itself");
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("log.access"), "{}", ended.stderr);
}

/// A page that fails at each of 1,100 requests is one incident that says so, a few lines of the log, and washes no
/// other away; a restart keeps all of it.
#[tokio::test]
async fn a_flood_of_failures_is_one_incident_and_a_few_lines() {
    const FLOOD: u64 = 1_100;
    let mut site = Site::new()
        .pages(&["first", "flood"])
        .script("/first", json!({"outcome": "panic"}))
        .script("/flood", json!({"outcome": "error"}))
        .start()
        .await;
    // Each failed once before, when it was to be made ahead of time.
    assert_eq!(site.get("/first").await.status, 500);
    let first = site.until_incident("trap", "/first").await;
    let mut reader = site.reader();
    for _ in 0..FLOOD {
        let answer = reader.send("GET", "/flood", &[], "").await.unwrap();
        assert_eq!(answer.status, 500, "{}", answer.text());
    }
    // A trap writes to stderr too.
    site.origin.script("/flood", json!({"outcome": "panic"}));
    for _ in 0..30 {
        assert_eq!(
            reader.send("GET", "/flood", &[], "").await.unwrap().status,
            500
        );
    }
    let told = async |site: &Running| {
        let all = site.incidents().await;
        let told = all
            .iter()
            .map(|it| (it["path"].clone(), it["kind"].clone(), it["count"].clone()));
        told.collect::<Vec<_>>()
    };
    let expected = vec![
        (json!("/flood"), json!("trap"), json!(30)),
        (json!("/flood"), json!("error"), json!(FLOOD + 1)),
        (json!("/first"), json!("trap"), json!(2)),
    ];
    assert_eq!(told(&site).await, expected);
    let flood = &site.incidents().await[1];
    assert!(flood["first"].as_u64() < flood["at"].as_u64(), "{flood}");
    let counted = site.metric("wisr_incidents_total{kind=\"error\"}").await;
    assert!((counted - (FLOOD + 1) as f64).abs() < 0.5, "{counted}");
    let log = site.log();
    let lines = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    assert_eq!(
        lines("path=\"/flood\"") - lines("kind=\"trap\" route=/flood"),
        4,
        "{log}"
    );
    assert!(lines("panicked") <= 8, "{log}");
    assert!(log.contains("(1000 times so far)"), "{log}");
    site.terminate();
    site.ended().await;
    site.restart().await;
    assert_eq!(told(&site).await, expected);
    let kept = site
        .admin(&format!("/api/incidents/{}", first["id"]))
        .await
        .json();
    assert_eq!(kept["path"], "/first", "{kept}");
}
