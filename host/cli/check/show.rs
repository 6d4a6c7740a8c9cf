//! `account`: a checked module in words, and as JSON.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::super::terminal;
use super::Checked;
use super::render::{Listing, Rendering};
use crate::guest::{Limits, Module};
use crate::page::{Content, Cost, Failure, Fetch, Generation, Lifetime, Outcome, Tag};

/// Columns before a value.
const LABEL: usize = 16;

/// What every module gets, whatever it imports.
const GRANTED: &str = "clocks, random numbers, the log; no files, no environment, no sockets";

/// What there is to say of a module that would be loaded. Writing to a `String` cannot fail.
pub(super) fn account(file: &Path, checked: &Checked) -> String {
    let Checked {
        place,
        module,
        rendering,
    } = checked;
    let verdict = match place.shadow {
        None => "would be served",
        Some(_) => "would never be served",
    };
    let mut text = format!("{}: {verdict}", file.display());
    let role = match module.role().exports() {
        ["incoming-handler"] => "API route",
        _ => "page",
    };
    let guessed = match place.is_certain {
        true => "",
        false => ", by its name (--route says otherwise)",
    };
    row(&mut text, "route", &format!("{}{guessed}", place.pattern));
    if let Some(shadow) = &place.shadow {
        row(&mut text, "shadowed", shadow);
    }
    let kind = format!("{role}, {}", module.kind().as_str());
    row(&mut text, "kind", &kind);
    row(&mut text, "digest", module.digest().short().as_str());
    let size = terminal::size(module.size());
    let code = terminal::size(module.compiled_size());
    let took = terminal::span(module.compile_time().unwrap_or_default());
    row(&mut text, "size", &size);
    row(
        &mut text,
        "machine code",
        &format!("{code}, compiled in {took}"),
    );
    let start = module.start();
    let memory = terminal::size(start.memory);
    let micros = start.instantiate.as_micros();
    row(
        &mut text,
        "at rest",
        &format!("{memory} of memory, started in {micros} µs"),
    );
    row(&mut text, "exports", &module.role().exports().join(", "));
    row(&mut text, "imports", &lines(&packages(module.imports())));
    row(&mut text, "granted", GRANTED);
    row(&mut text, "outgoing HTTP", &outbound(checked));
    let settings: Vec<_> = place.rules.settings.keys().cloned().collect();
    row(&mut text, "settings", &or_none(settings.join(", ")));
    row(&mut text, "limits", &limits(&place.rules.limits));
    let site = place.site.as_ref().map_or_else(
        || "no site: the defaults hold (--site names one)".to_owned(),
        |site| format!("as wisr.toml in {} says", site.display()),
    );
    row(&mut text, "rules", &site);
    if let Some(rendering) = rendering {
        rendered(&mut text, rendering);
    }
    text
}

fn row(text: &mut String, label: &str, value: &str) {
    let _ = write!(text, "\n  {label:<LABEL$}{value}");
}

fn lines(values: &[String]) -> String {
    or_none(values.join(&format!("\n  {:LABEL$}", "")))
}

/// The interfaces of each package in one line: `wasi:io@0.2.12 poll, error, streams`.
fn packages(imports: &[String]) -> Vec<String> {
    let mut packages: Vec<(String, Vec<&str>)> = Vec::new();
    for import in imports {
        let (name, version) = import.split_once('@').unwrap_or((import, ""));
        let (package, interface) = name.split_once('/').unwrap_or((name, ""));
        let package = match version {
            "" => package.to_owned(),
            version => format!("{package}@{version}"),
        };
        match packages.iter_mut().find(|(known, _)| *known == package) {
            Some((_, interfaces)) => interfaces.push(interface),
            None => packages.push((package, vec![interface])),
        }
    }
    let packages = packages.into_iter();
    packages
        .map(|(package, interfaces)| format!("{package} {}", interfaces.join(", ")))
        .collect()
}

fn or_none(text: String) -> String {
    match text.is_empty() {
        true => "none".to_owned(),
        false => text,
    }
}

fn outbound(checked: &Checked) -> String {
    let hosts = checked.place.rules.outbound.entries().iter();
    let hosts: Vec<_> = hosts.map(ToString::to_string).collect();
    match (checked.module.wants_http(), hosts.as_slice()) {
        (false, _) => "none".to_owned(),
        (true, []) => {
            "can ask, and may reach nobody: list hosts in `outbound` in wisr.toml".to_owned()
        }
        (true, hosts) => hosts.join(", "),
    }
}

fn limits(limits: &Limits) -> String {
    format!(
        "cpu {}, wall {}, memory {}, page {}, props {}, fetches {}",
        terminal::span(limits.cpu),
        terminal::span(limits.wall),
        terminal::size(limits.memory),
        terminal::size(limits.page),
        terminal::size(limits.props),
        limits.fetches
    )
}

fn rendered(text: &mut String, rendering: &Rendering) {
    let context = &rendering.context;
    let _ = write!(text, "\n\n{} as {}", context.path, context.route);
    for param in &context.params {
        let _ = write!(text, ", {} = {}", param.name, param.values.join("/"));
    }
    if let Listing::Unlisted(fallback) = rendering.listing {
        let note = format!(
            "no: a server answers with its fallback, {}",
            fallback.as_str()
        );
        row(text, "listed", &note);
    }
    let cost = match &rendering.made {
        Ok(Generation {
            outcome,
            tags,
            cost,
        }) => {
            told(text, outcome, tags);
            cost
        }
        Err(failure) => {
            failed(text, failure);
            &failure.cost
        }
    };
    row(text, "took", &cost_words(cost));
    let fetches: Vec<_> = cost.fetches.iter().map(fetch_words).collect();
    row(text, "fetches", &lines(&fetches));
}

fn told(text: &mut String, outcome: &Outcome, tags: &[Tag]) {
    match outcome {
        Outcome::Page(props, document) => {
            row(text, "status", document.status.as_str());
            let headers = document.headers.iter();
            let headers: Vec<_> = headers
                .map(|(name, value)| {
                    format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
                })
                .collect();
            row(text, "headers", &lines(&headers));
            aging(text, props.lifetime, tags);
            row(text, "props", &terminal::size(props.json.len() as u64));
            let body = terminal::size(document.body.len() as u64);
            row(text, "body", &format!("{body} (--body prints it)"));
        }
        Outcome::Unchanged(props) => aging(text, props.lifetime, tags),
        Outcome::NotFound(lifetime) => {
            row(text, "status", "404, there is no such page");
            aging(text, *lifetime, tags);
        }
        Outcome::Redirect {
            location,
            status,
            lifetime,
        } => {
            let location = String::from_utf8_lossy(location.as_bytes());
            row(
                text,
                "status",
                &format!("{}, to {location}", status.as_str()),
            );
            aging(text, *lifetime, tags);
        }
    }
}

fn aging(text: &mut String, lifetime: Lifetime, tags: &[Tag]) {
    row(text, "fresh", &fresh(lifetime));
    let tags: Vec<_> = tags.iter().map(|tag| tag.as_str()).collect();
    row(text, "tags", &or_none(tags.join(", ")));
}

fn fresh(lifetime: Lifetime) -> String {
    match lifetime {
        Lifetime::Inherit => "as its route says (`revalidate` in wisr.toml)".to_owned(),
        Lifetime::Never => "until it is invalidated".to_owned(),
        Lifetime::Seconds(seconds) => format!("for {seconds} s"),
    }
}

fn failed(text: &mut String, failure: &Failure) {
    let (kind, call) = (failure.kind.as_str(), &failure.call);
    let message: Vec<_> = failure.message.lines().map(str::to_owned).collect();
    row(
        text,
        "failed",
        &format!("{kind} in {call}: {}", lines(&message)),
    );
    let frames: Vec<_> = failure
        .frames
        .iter()
        .map(|frame| match &frame.location {
            Some(place) => format!("{} at {place}", frame.function),
            None => frame.function.clone(),
        })
        .collect();
    row(text, "backtrace", &lines(&frames));
    let stderr: Vec<_> = failure.stderr.lines().map(str::to_owned).collect();
    row(text, "stderr", &lines(&stderr));
    if let Some(props) = &failure.props {
        row(text, "props", props);
    }
}

fn cost_words(cost: &Cost) -> String {
    format!(
        "{} of CPU time, {} by the clock, {} of memory",
        terminal::span(cost.cpu),
        terminal::span(cost.wall),
        terminal::size(cost.memory)
    )
}

fn fetch_words(fetch: &Fetch) -> String {
    let result = match &fetch.result {
        Ok(status) => status.to_string(),
        Err(error) => error.clone(),
    };
    let took = terminal::span(fetch.duration);
    format!("{} {} {result}, {took}", fetch.method, fetch.url)
}

/// The same for scripts.
pub(super) fn json(file: &Path, found: &anyhow::Result<Checked>) -> Value {
    let file = file.display().to_string();
    let checked = match found {
        Ok(checked) => checked,
        Err(error) => {
            return json!({"file": file, "served": false, "reason": format!("{error:#}")});
        }
    };
    let Checked {
        place,
        module,
        rendering,
    } = checked;
    let rules = &place.rules;
    let outbound = rules.outbound.entries().iter().map(ToString::to_string);
    let mut report = module_json(module);
    report["served"] = json!(place.shadow.is_none());
    if let Some(shadow) = &place.shadow {
        report["reason"] = json!(shadow);
    }
    report["file"] = json!(file);
    report["route"] = json!(place.pattern.as_str());
    report["site"] = json!(place.site);
    report["outbound"] = json!(outbound.collect::<Vec<_>>());
    report["settings"] = json!(rules.settings.keys().collect::<Vec<_>>());
    report["limits"] = json!({
        "cpuSeconds": rules.limits.cpu.as_secs_f64(),
        "wallSeconds": rules.limits.wall.as_secs_f64(),
        "memory": rules.limits.memory,
        "page": rules.limits.page,
        "props": rules.limits.props,
        "fetches": rules.limits.fetches,
    });
    if let Some(rendering) = rendering {
        report["render"] = rendering_json(rendering);
    }
    report
}

fn module_json(module: &Module) -> Value {
    json!({
        "kind": module.kind().as_str(),
        "digest": module.digest(),
        "size": module.size(),
        "compiledSize": module.compiled_size(),
        "compileSeconds": module.compile_time().unwrap_or_default().as_secs_f64(),
        "startSeconds": module.start().instantiate.as_secs_f64(),
        "memoryAtRest": module.start().memory,
        "exports": module.role().exports(),
        "imports": module.imports(),
        "fetches": module.wants_http(),
    })
}

fn rendering_json(rendering: &Rendering) -> Value {
    let context = &rendering.context;
    let mut report = json!({
        "path": context.path,
        "route": context.route,
        "params": context.params,
        "listed": rendering.listing == Listing::Listed,
    });
    match &rendering.made {
        Err(failure) => report["failure"] = json!(failure),
        Ok(Generation {
            outcome,
            tags,
            cost,
        }) => {
            report["cost"] = json!(cost);
            report["outcome"] = outcome_json(outcome);
            report["outcome"]["tags"] = json!(tags);
        }
    }
    report
}

fn outcome_json(outcome: &Outcome) -> Value {
    let seconds = |lifetime: Lifetime| match lifetime {
        Lifetime::Inherit => json!("inherit"),
        Lifetime::Never => json!("never"),
        Lifetime::Seconds(seconds) => json!(seconds),
    };
    match outcome {
        Outcome::Page(props, document) => {
            let headers = document.headers.iter();
            let headers = headers
                .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())));
            json!({
                "kind": "page",
                "status": document.status.as_u16(),
                "headers": headers.collect::<Vec<_>>(),
                "revalidate": seconds(props.lifetime),
                "props": serde_json::from_slice::<Value>(&props.json).ok(),
                "body": String::from_utf8_lossy(&document.body),
            })
        }
        Outcome::Unchanged(props) => {
            json!({"kind": "unchanged", "revalidate": seconds(props.lifetime)})
        }
        Outcome::NotFound(lifetime) => {
            json!({"kind": Content::NotFound.as_str(), "revalidate": seconds(*lifetime)})
        }
        Outcome::Redirect {
            location,
            status,
            lifetime,
        } => json!({
            "kind": "redirect",
            "status": status.as_u16(),
            "location": String::from_utf8_lossy(location.as_bytes()),
            "revalidate": seconds(*lifetime),
        }),
    }
}
