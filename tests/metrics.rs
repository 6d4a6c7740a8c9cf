//! Section 9: `/metrics`, as Prometheus and its conventions want it, and the dashboard over it.

use std::collections::{BTreeMap, BTreeSet};

use openmetrics_parser::openmetrics::parse_openmetrics;
use serde_json::{Value, json};

use crate::modules;
use crate::site::{Running, Site, wait_for};

/// A site on which everything that is counted has happened.
async fn busy() -> Running {
    let site = Site::new()
        .pages(&["index", "broken"])
        .module("api/hook", modules::hook())
        .script("/broken", json!({"outcome": "panic"}))
        .start_unready()
        .await;
    site.until_ready().await;
    site.until("/", |page| page.status == 200).await;
    for _ in 0..3 {
        assert_eq!(site.get("/").await.verdict(), "HIT");
    }
    assert_eq!(site.get("/broken").await.status, 500);
    assert_eq!(site.get("/api/hook").await.status, 200);
    assert_eq!(site.get("/nowhere").await.status, 404);
    let wrong = [("authorization", "Bearer wrong")];
    let denied = site.send("POST", "/api/revalidate", &wrong, "{}").await;
    assert_eq!(denied.status, 401);
    site
}

/// The exposition, by the name of each sample with its labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.rsplit_once(' '));
    pairs
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

async fn exposition(site: &Running) -> String {
    let answer = site.admin("/metrics").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    answer.text()
}

/// A parser that is not the writer's reads it, and each family keeps the conventions.
#[tokio::test]
async fn prometheus_understands_what_is_told() {
    let text = exposition(&busy().await).await;
    // The parser does not know that histograms may have units (OpenMetrics 1.0, section 4.5).
    let (units, plain): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.starts_with("# UNIT "));
    let units = units
        .iter()
        .filter_map(|line| line["# UNIT ".len()..].split_once(' '));
    let units: BTreeMap<&str, &str> = units.collect();
    let plain = plain.join("\n");
    let parsed = parse_openmetrics(&plain).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
    assert!(parsed.families.len() > 30, "{}", parsed.families.len());
    let broken: Vec<String> = parsed
        .families
        .values()
        .flat_map(|family| {
            let (name, help) = (family.family_name.as_str(), family.help.as_str());
            lint(name, help, units.get(name).unwrap_or(&""))
        })
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
    let helps: BTreeSet<&str> = parsed
        .families
        .values()
        .map(|family| &*family.help)
        .collect();
    assert_eq!(
        helps.len(),
        parsed.families.len(),
        "two metrics say the same"
    );
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let sampled = text.lines().filter(|line| line.starts_with(name)).count();
        assert!(sampled > 0 || kind != "gauge", "{name} has no value");
    }
}

/// What breaks the conventions of <https://prometheus.io/docs/practices/naming>.
fn lint(name: &str, help: &str, unit: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let mut hold = |holds: bool, rule: &str| {
        if !holds {
            broken.push(format!("{name}: {rule}"));
        }
    };
    let is_plain = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_';
    hold(name.chars().all(is_plain), "lower case, digits, `_`");
    hold(
        name.starts_with("wisr_") || name.starts_with("process_"),
        "whose it is stands first",
    );
    hold(!name.ends_with("_total"), "the format adds `_total` itself");
    hold(help.len() > 10 && help.ends_with('.'), "a sentence of help");
    for (base, others) in [
        (
            "seconds",
            &["_ms", "_millis", "_milliseconds", "_minutes"][..],
        ),
        ("bytes", &["_kb", "_mb", "_kib", "_mib", "_bits"]),
    ] {
        let is_other = others.iter().any(|other| name.ends_with(other));
        hold(!is_other, "base units: seconds, bytes");
        let says = name.ends_with(&format!("_{base}"));
        hold(says == (unit == base), "the name ends with the unit");
    }
    broken
}

#[test]
fn the_lint_finds_what_it_looks_for() {
    assert_eq!(lint("wisr_pages", "All the pages there are.", "").len(), 0);
    assert_eq!(
        lint("wisr_load_seconds", "How long it took.", "seconds").len(),
        0
    );
    assert_eq!(lint("wisr_load_seconds", "How long it took.", "").len(), 1);
    assert_eq!(lint("wisr_load_ms", "How long it took.", "").len(), 1);
    assert_eq!(lint("pages", "All the pages there are.", "").len(), 1);
    assert_eq!(lint("wisr_pages_total", "Pages.", "").len(), 2);
}

/// What happened is what is counted.
#[tokio::test]
async fn what_happened_is_counted() {
    let site = busy().await;
    // A generation is counted when its reader has been answered.
    let last = "wisr_generations_total{cause=\"first-request\",outcome=\"trap\"}";
    wait_for(last, async || {
        let text = exposition(&site).await;
        if samples(&text).contains_key(last) {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
    let told = samples(&exposition(&site).await);
    let value = |name: &str| {
        told.get(name)
            .copied()
            .unwrap_or_else(|| panic!("{name} in {told:#?}"))
    };
    assert!(value("wisr_served_total{verdict=\"hit\"}") >= 3.0);
    for name in [
        "wisr_route_generations_total{route=\"/broken\",outcome=\"failed\"}",
        "wisr_incidents_total{kind=\"trap\"}",
    ] {
        assert!(value(name) >= 1.0, "{name}");
    }
    for (name, wanted) in [
        (
            "wisr_api_requests_total{route=\"/api/hook\",outcome=\"2xx\"}",
            1.0,
        ),
        (
            "wisr_request_seconds_count{cache=\"none\",status=\"5xx\"}",
            1.0,
        ),
        (
            "wisr_request_seconds_count{cache=\"none\",status=\"4xx\"}",
            2.0,
        ),
        (
            "wisr_callers_denied_total{door=\"site\",reason=\"wrong-token\"}",
            1.0,
        ),
        ("wisr_routes", 3.0),
        ("wisr_release", 1.0),
        ("wisr_module_load_seconds_count{outcome=\"ok\"}", 3.0),
        ("wisr_store_healthy", 1.0),
    ] {
        assert_eq!(value(name), wanted, "{name}");
    }
    let hits = value("wisr_request_seconds_count{cache=\"hit\",status=\"2xx\"}");
    assert!(hits >= 3.0, "{hits}");
    let fetched = value("wisr_fetches_total{route=\"/\",outcome=\"2xx\"}");
    let made = value("wisr_generation_phase_seconds_count{phase=\"render\"}");
    assert!(fetched >= 1.0 && made >= 1.0, "{fetched} {made}");
    for of_process in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_threads",
        "process_start_time_seconds",
        &format!(
            "wisr_build_info{{version=\"{}\"}}",
            env!("CARGO_PKG_VERSION")
        ),
    ] {
        assert!(value(of_process) > 0.0, "{of_process}");
    }
}

/// Whatever clients ask for, there are no more series.
#[tokio::test]
async fn clients_make_no_series() {
    let site = Site::new()
        .pages(&["index", "posts/[id]"])
        .config("[defaults]\nquery = [\"q\"]")
        .start()
        .await;
    let ask = async |name: &str| {
        for path in [
            format!("/posts/{name}"),
            format!("/nowhere/{name}"),
            format!("/?q={name}"),
            format!("/_wisr/data/posts/{name}.json"),
        ] {
            site.get(&path).await;
        }
        let agent = [("user-agent", name), ("host", name)];
        site.send("PURGE", "/", &agent, "").await;
    };
    ask("first").await;
    let before: BTreeSet<String> = samples(&exposition(&site).await).into_keys().collect();
    for round in 0..20 {
        ask(&format!("page-{round}")).await;
    }
    let after = samples(&exposition(&site).await).into_keys();
    // A verdict may come up for the first time: series are bounded, not fixed.
    let new: Vec<String> = after.filter(|name| !before.contains(name)).collect();
    assert!(new.iter().all(|name| !name.contains("page-")), "{new:?}");
    assert!(new.len() < 20, "{new:?}");
}

/// The dashboard asks for nothing that is not there.
#[tokio::test]
async fn the_dashboard_shows_what_the_server_tells() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/.deploy/grafana.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let text = exposition(&busy().await).await;
    // Families without a series yet are told by their type alone.
    let mut known: BTreeSet<String> = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        known.extend(match kind {
            "counter" => vec![format!("{name}_total")],
            "histogram" => ["_bucket", "_count", "_sum"]
                .map(|end| format!("{name}{end}"))
                .into(),
            "info" => vec![format!("{name}_info")],
            _ => vec![name.to_owned()],
        });
    }
    let panels = dashboard["panels"].as_array().unwrap();
    let mut asked = BTreeSet::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        assert!(
            panel["fieldConfig"]["defaults"]["unit"].is_string(),
            "{title} has no unit"
        );
        assert!(
            panel["description"].is_string(),
            "{title} says not what it shows"
        );
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            let names = names(target["expr"].as_str().unwrap());
            assert!(!names.is_empty(), "{title}");
            asked.extend(names);
        }
    }
    assert!(asked.len() > 15, "{asked:?}");
    let unknown: Vec<&String> = asked.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?} of {known:#?}");
}

/// The metrics in an expression of PromQL.
fn names(expression: &str) -> Vec<String> {
    let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let words = expression.split(|char| !is_part(char));
    words
        .filter(|word| word.starts_with("wisr_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}
