//! `versus`: wisr beside nginx, Varnish, a bare hyper loop and a bare wasmtime loop, in one run.
//!
//! `cargo bench --bench versus [-- hits|generations|interference|hostile|crowd|small|swap|languages|store|shared]`.
//! Rounds are interleaved and ratios are of the same round, so that a noisy machine disturbs both sides
//! alike. What an opponent lacks is told, not failed on; the exit code is 1 only when wisr itself
//! could not be measured.

mod bare_http;
mod bare_wasm;
mod cpu;
mod crowd;
mod generations;
mod hits;
mod hostile;
mod interference;
mod keeper;
mod languages;
mod load;
mod own;
mod pages;
mod report;
mod servers;
mod shared;
mod site;
mod small;
mod store;
mod swap;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, getrlimit, setrlimit};

use cpu::Cores;
use report::{Report, progress};
use site::Site;

/// What the server has, so that loops in this process have it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The parts of a run, in order.
const PARTS: [&str; 10] = [
    "hits",
    "generations",
    "interference",
    "hostile",
    "crowd",
    "small",
    "swap",
    "languages",
    "store",
    "shared",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ended = match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        // The bare loop is a process of its own: its CPU time is to be told apart.
        ["--bare", addr, folder, threads] => serve_bare(addr, folder, threads),
        ["--keeper", what, folder, pages, memory, module] => {
            keeper::run(what, folder, pages, memory, module)
        }
        // cargo passes `--bench`.
        words => measure(
            words
                .iter()
                .copied()
                .filter(|word| *word != "--bench")
                .collect(),
        ),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn serve_bare(addr: &str, folder: &str, threads: &str) -> Result<()> {
    bare_http::serve(
        addr.parse::<SocketAddr>()?,
        Path::new(folder),
        threads.parse()?,
    )
}

/// As many open files as are allowed, for this process and the servers that it starts: a crowd has
/// ten thousand.
fn raise_open_files() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

fn measure(parts: Vec<&str>) -> Result<()> {
    if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(part)) {
        bail!(
            "no part is called {unknown:?}; there are {}",
            PARTS.join(", ")
        );
    }
    raise_open_files()?;
    let cores = Cores::divide()?;
    let module = site::built("tenk")?;
    let site = Site::lay_out(&module)?;
    let mut report = Report::default();
    let mut failures = Vec::new();
    for part in PARTS
        .iter()
        .filter(|part| parts.is_empty() || parts.contains(part))
    {
        let ended = match *part {
            "hits" => hits::run(&site, &cores, &mut report),
            "generations" => generations::run(&module, &site, &cores, &mut report),
            "hostile" => hostile::run(&module, &cores, &mut report),
            "interference" => interference::run(&module, &site, &cores, &mut report),
            "crowd" => crowd::run(&site, &cores, &mut report),
            "small" => small::run(&site, &cores, &mut report),
            "swap" => swap::run(&mut report),
            "languages" => languages::run(&mut report),
            "store" => store::run(&module, &cores, &mut report),
            _ => shared::run(&module, &cores, &mut report),
        };
        if let Err(error) = ended {
            report.missing(format!("{part}: {error:#}"));
            failures.push(*part);
        }
    }
    report.print(&cores).context("printing")?;
    if !failures.is_empty() {
        bail!("wisr could not be measured: {}", failures.join(", "));
    }
    Ok(())
}
