//! [`run`]: a cached page from wisr and from its opponents: CPU time for each request, requests per
//! second, and the time below which 99 of 100 requests are answered.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::bare_http::HEADERS;
use crate::cpu::{Cores, spent};
use crate::load::{Load, get, once};
use crate::report::{Report, progress};
use crate::servers::{Process, Target, bare, nginx, varnish};
use crate::site::{PAGE, Site};

const ROUNDS: usize = 8;

/// One server's turn in a round.
const TURN: Duration = Duration::from_millis(900);

/// The headers of wisr's response that the opponents repeat, so that heads are of like size; the
/// others each of them makes itself.
const REPEATED: [&str; 5] = [
    "cache-control",
    "cache-status",
    "x-wisr-cache",
    "vary",
    "age",
];

/// What one turn gave.
#[derive(Clone, Copy)]
struct Turn {
    /// Microseconds of CPU time for each request.
    cpu: f64,
    per_second: f64,
    /// Microseconds.
    p99: f64,
}

/// The servers, each of which runs from the first round to the last.
struct Ring {
    _processes: Vec<Process>,
    /// wisr is the first.
    targets: Vec<Target>,
    _folder: tempfile::TempDir,
}

/// Measures hits.
///
/// # Errors
/// When wisr itself cannot be measured.
pub(crate) fn run(site: &Site, cores: &Cores, report: &mut Report) -> Result<()> {
    let ring = gather(site, cores, report)?;
    let mut rounds: Vec<Vec<Option<Turn>>> = Vec::new();
    for round in 0..=ROUNDS {
        progress(&format!("hits, round {round} of {ROUNDS}"));
        let turns = ring.targets.iter().map(|target| turn(target, cores));
        let turns: Vec<Result<Turn>> = turns.collect();
        for (target, turn) in ring.targets.iter().zip(&turns) {
            if let Err(error) = turn {
                report.missing(format!("{}, round {round}: {error:#}", target.name));
            }
        }
        // The first round warms the caches of all of them.
        if round > 0 {
            rounds.push(turns.into_iter().map(Result::ok).collect());
        }
    }
    rounds
        .iter()
        .all(|turns| turns[0].is_some())
        .then_some(())
        .context("wisr did not answer")?;
    tell(&ring.targets, &rounds, report);
    Ok(())
}

fn gather(site: &Site, cores: &Cores, report: &mut Report) -> Result<Ring> {
    let wisr = site.serve(&cores.servers)?;
    let (head, body) = wisr.settle()?;
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("page"), &body)?;
    let mut headers = headers(&head, &REPEATED);
    let bare_headers = [
        headers.clone(),
        self::headers(&head, &["etag", "last-modified", "content-type"]),
    ];
    fs::write(
        folder.path().join(HEADERS),
        serde_json::to_vec(&bare_headers.concat())?,
    )?;
    // Two of nginx's own, which it would send twice.
    headers.retain(|(name, _)| name != "age");

    let own = |name, headers| Target {
        name,
        pid: wisr.process.pid(),
        addr: wisr.site,
        path: PAGE,
        headers,
    };
    let mut targets = vec![own("wisr", ""), own("wisr, br", "accept-encoding: br\r\n")];
    let (process, target) = bare(folder.path(), &cores.servers)?;
    let origin = target.addr;
    targets.push(target);
    let mut processes = vec![process, wisr.process];
    match nginx(folder.path(), &headers, origin, &cores.servers) {
        Ok((process, four)) => {
            processes.push(process);
            targets.extend(four);
        }
        Err(absent) => report.missing(absent),
    }
    match varnish(folder.path(), origin, &cores.servers) {
        Ok((process, target)) => {
            processes.push(process);
            targets.push(target);
        }
        Err(absent) => report.missing(absent),
    }
    compare_bodies(&targets, &body, report);
    Ok(Ring {
        _processes: processes,
        targets,
        _folder: folder,
    })
}

/// Opponents that serve something else would win or lose for nothing.
fn compare_bodies(targets: &[Target], body: &[u8], report: &mut Report) {
    for target in targets.iter().filter(|target| target.headers.is_empty()) {
        match once(target.addr, &get(target.path, "")) {
            Ok((head, served)) if served == body => {
                progress(&format!(
                    "{}: a head of {} bytes, a body of {}",
                    target.name,
                    head.len(),
                    served.len()
                ));
            }
            Ok((head, served)) => report.missing(format!(
                "{}: serves {} bytes instead of {}: {head}",
                target.name,
                served.len(),
                body.len()
            )),
            Err(error) => report.missing(format!("{}: {error:#}", target.name)),
        }
    }
}

fn headers(head: &str, names: &[&str]) -> Vec<(String, String)> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let pairs = lines.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    pairs
        .filter(|(name, _)| names.contains(&name.as_str()))
        .collect()
}

fn turn(target: &Target, cores: &Cores) -> Result<Turn> {
    let load = Load::hits(target.addr, target.path, target.headers);
    let before = spent(target.pid)?;
    let measured = load.run(&cores.load, TURN)?;
    let cpu = spent(target.pid)?.saturating_sub(before).as_secs_f64() * 1e6;
    Ok(Turn {
        cpu: cpu / measured.requests() as f64,
        per_second: measured.per_second(),
        p99: measured.quantile(0.99),
    })
}

/// What wisr may cost, measured in the opponent's CPU time.
fn expected(opponent: &str) -> Option<f64> {
    match opponent {
        "nginx static" | "nginx static, open_file_cache" => Some(0.8),
        "nginx proxy_cache" | "nginx proxy_cache, open_file_cache" => Some(0.65),
        "Varnish" => Some(0.4),
        _ => None,
    }
}

fn tell(targets: &[Target], rounds: &[Vec<Option<Turn>>], report: &mut Report) {
    let column = |index: usize, of: fn(Turn) -> f64| -> Vec<f64> {
        rounds
            .iter()
            .filter_map(|turns| turns[index].map(of))
            .collect()
    };
    let paired = |one: usize, other: usize, of: fn(Turn) -> f64| -> Vec<f64> {
        let pair = |turns: &Vec<Option<Turn>>| Some(of(turns[one]?) / of(turns[other]?));
        rounds.iter().filter_map(pair).collect()
    };
    report.section("Hits: CPU time for each request, wisr to another, round by round");
    for (index, target) in targets.iter().enumerate().skip(1) {
        let ratios = paired(0, index, |turn| turn.cpu);
        report.ratio(
            format!("wisr / {}", target.name),
            ratios,
            expected(target.name),
        );
    }
    report.section("Hits: the floor: the bare hyper loop to another");
    for (index, target) in targets.iter().enumerate().skip(3) {
        report.ratio(
            format!("bare hyper / {}", target.name),
            paired(2, index, |turn| turn.cpu),
            None,
        );
    }
    report.section("Hits: requests per second and p99, wisr to another");
    for (index, target) in targets.iter().enumerate().skip(1) {
        let name = target.name;
        report.ratio(
            format!("requests/s, wisr / {name}"),
            paired(0, index, |turn| turn.per_second),
            None,
        );
        report.ratio(
            format!("p99, wisr / {name}"),
            paired(0, index, |turn| turn.p99),
            None,
        );
    }
    report.section("Hits: as measured");
    for (index, target) in targets.iter().enumerate() {
        let name = target.name;
        report.row(
            format!("{name}: CPU"),
            column(index, |turn| turn.cpu),
            "us",
            None,
        );
        report.row(
            format!("{name}: requests"),
            column(index, |turn| turn.per_second),
            "/s",
            None,
        );
        report.row(
            format!("{name}: p99"),
            column(index, |turn| turn.p99),
            "us",
            None,
        );
    }
}
