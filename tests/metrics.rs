//! Section 9: `/metrics`, as Prometheus and its conventions want it, and the dashboard over it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::modules;
use crate::site::{Running, Site, wait_for};
use crate::tools::tool;

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

/// What is told of a family before its samples.
#[derive(Default)]
struct Family<'a> {
    help: &'a str,
    kind: &'a str,
    unit: &'a str,
}

/// The families, by their names.
fn families(text: &str) -> BTreeMap<&str, Family<'_>> {
    let mut families: BTreeMap<&str, Family<'_>> = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# ")) {
        let mut words = line.splitn(3, ' ');
        let (Some(word), Some(name), Some(said)) = (words.next(), words.next(), words.next())
        else {
            assert_eq!(line, "EOF");
            continue;
        };
        let family = families.entry(name).or_default();
        match word {
            "HELP" => family.help = said,
            "TYPE" => family.kind = said,
            "UNIT" => family.unit = said,
            _ => panic!("{line}"),
        }
    }
    families
}

/// Each family says what it is, in its conventions, and each sample is of a family.
#[tokio::test]
async fn prometheus_understands_what_is_told() {
    let text = exposition(&busy().await).await;
    let families = families(&text);
    assert!(families.len() > 30, "{}", families.len());
    let broken: Vec<String> = families
        .iter()
        .flat_map(|(name, family)| lint(name, family.help, family.unit))
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
    let helps: BTreeSet<&str> = families.values().map(|family| family.help).collect();
    assert_eq!(helps.len(), families.len(), "two metrics say the same");
    for name in samples(&text).keys() {
        let name = name.split('{').next().unwrap();
        let is_of = |family: &&str| {
            let ends: &[&str] = match families[family].kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                "info" => &["_info"],
                _ => &[""],
            };
            ends.iter()
                .any(|end| name.strip_suffix(end) == Some(family))
        };
        assert!(families.keys().any(is_of), "{name} is of no family");
    }
    let promtool = tool("promtool", "apt-get install prometheus");
    let checked = promtool.map(|promtool| check(&promtool, &classic(&text, &families)));
    assert_eq!(checked.unwrap_or_default(), "");
}

/// The older format, in which counters and infos have the names of their samples: what `promtool`
/// reads.
fn classic(text: &str, families: &BTreeMap<&str, Family<'_>>) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        lines.push(match words[..] {
            ["#", "UNIT" | "EOF", ..] => continue,
            ["#", word, name, said] => {
                let (end, kind) = match families[name].kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    kind => ("", kind),
                };
                let said = if word == "TYPE" { kind } else { said };
                format!("# {word} {name}{end} {said}")
            }
            _ => line.to_owned(),
        });
    }
    lines.join("\n") + "\n"
}

/// What Prometheus' own linter has to say.
fn check(promtool: &Path, text: &str) -> String {
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    String::from_utf8(told).unwrap()
}

/// The buckets of a histogram grow up to all there is.
#[tokio::test]
async fn histograms_are_whole() {
    let text = exposition(&busy().await).await;
    let told = samples(&text);
    let counts: Vec<_> = told
        .iter()
        .filter(|(name, _)| name.contains("_count"))
        .collect();
    assert!(counts.len() > 8, "{counts:?}");
    for (name, count) in counts {
        let (family, labels) = name.split_once("_count").unwrap();
        let labels = labels.trim_matches(['{', '}']);
        let is_of =
            |line: &&str| line.starts_with(&format!("{family}_bucket{{")) && line.contains(labels);
        let buckets = text.lines().filter(is_of).filter_map(|line| {
            let (_, bound) = line.split_once("le=\"")?;
            let (bound, rest) = bound.split_once('"')?;
            let value: f64 = rest.rsplit_once(' ')?.1.parse().ok()?;
            Some((bound.replace("+Inf", "inf").parse::<f64>().ok()?, value))
        });
        let buckets: Vec<(f64, f64)> = buckets.collect();
        assert!(buckets.is_sorted(), "{name}: {buckets:?}");
        assert!(
            buckets.is_sorted_by_key(|(_, value)| *value),
            "{name}: {buckets:?}"
        );
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, *count)), "{name}");
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
