//! [`run`]: a good client beside a crowd: ten thousand idle connections and five hundred stalled
//! ones; and hits beside ten times the cold pages that can be made.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cpu::{Cores, pinned, resident};
use crate::load::{Load, Measured, get, once};
use crate::report::{Report, progress};
use crate::site::{PAGE, Running, Site};

const ROUNDS: usize = 3;
const TURN: Duration = Duration::from_secs(3);

/// Connections that asked once and are kept.
const IDLE: usize = 10_000;

/// Connections that ask for more than they take.
const STALLED: usize = 500;

/// Requests of a stalled connection: a megabyte of answers, more than the kernels hold.
const ASKED: usize = 100;

/// Hits at a pace that leaves the cores half idle.
const PACE: Duration = Duration::from_millis(5);

/// A good client's p99 beside the crowd, as a multiple of alone.
const AT_MOST: f64 = 2.0;

/// Cold pages that can be made in a second: eight at once, each busy for 0.9 s.
const SUSTAINABLE: f64 = 8.0 / 0.9;

/// How long ten times as many are asked for.
const OVERLOAD: Duration = Duration::from_secs(5);

/// How long all of it may take to be over.
const RECOVERY: Duration = Duration::from_secs(60);

/// Measures hits beside crowds.
///
/// # Errors
/// When wisr itself cannot be measured.
pub(crate) fn run(site: &Site, cores: &Cores, report: &mut Report) -> Result<()> {
    let wisr = site.serve(&cores.servers)?;
    wisr.settle()?;
    let paced = Load {
        pace: Some(PACE),
        ..Load::hits(wisr.site, PAGE, "")
    };
    beside_idle(&wisr, &paced, cores, report)?;
    beside_overload(&wisr, &paced, cores, report)
}

fn beside_idle(wisr: &Running, paced: &Load, cores: &Cores, report: &mut Report) -> Result<()> {
    let memory = || resident(wisr.process.pid()).map(|bytes| bytes as f64);
    let (mut ratios, mut alone, mut beside) = (Vec::new(), Vec::new(), Vec::new());
    let (mut idle_cost, mut stalled_cost) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        progress(&format!("crowd, round {} of {ROUNDS}", round + 1));
        let quiet = paced.run(&cores.load, TURN)?.quantile(0.99);
        let empty = memory()?;
        let idle = pinned(&cores.load, || {
            (0..IDLE).map(|_| idle(wisr)).collect::<Result<Vec<_>>>()
        })?;
        let with_idle = memory()?;
        let stalled = (0..STALLED).map(|_| stalled(wisr));
        let stalled = stalled.collect::<Result<Vec<_>>>()?;
        let crowded = paced.run(&cores.load, TURN)?.quantile(0.99);
        let full = memory()?;
        let open = wisr.metric("wisr_connections")?;
        ensure!(
            open >= (IDLE + STALLED) as f64,
            "{open} connections are left of the crowd"
        );
        drop((idle, stalled));
        wisr.until("wisr_connections", 0.0, RECOVERY)?;
        ratios.push(crowded / quiet);
        alone.push(quiet);
        beside.push(crowded);
        idle_cost.push((with_idle - empty) / IDLE as f64 / 1e3);
        stalled_cost.push((full - with_idle) / STALLED as f64 / 1e3);
    }
    report.section("Crowd: 12,800 hits/s beside 10,000 idle and 500 stalled connections");
    report.ratio("p99, beside the crowd / alone", ratios, Some(AT_MOST));
    report.row("alone: p99", alone, "us", None);
    report.row("beside the crowd: p99", beside, "us", None);
    // What was freed by one round is used again by the next: the first one tells.
    report.row("memory of an idle connection", idle_cost, "kB", None);
    report.row("memory of a stalled connection", stalled_cost, "kB", None);
    Ok(())
}

/// A connection that was answered once.
fn idle(wisr: &Running) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(wisr.site)?;
    stream.write_all(&get("/nothing-here", "connection: keep-alive\r\n"))?;
    let mut buffer = [0; 4096];
    ensure!(
        stream.read(&mut buffer)? > 0,
        "an idle connection was closed"
    );
    Ok(stream)
}

/// A connection that takes nothing of what it asked for.
fn stalled(wisr: &Running) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(wisr.site), Type::STREAM, None)?;
    socket.set_recv_buffer_size(4096)?;
    socket.connect(&wisr.site.into())?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(&get(PAGE, "").repeat(ASKED))?;
    Ok(stream)
}

/// What became of the cold pages that were asked for.
#[derive(Default)]
struct Cold {
    asked: AtomicUsize,
    made: AtomicUsize,
    refused: AtomicUsize,
    /// Milliseconds that the most patient reader waited.
    longest: AtomicUsize,
}

fn beside_overload(wisr: &Running, paced: &Load, cores: &Cores, report: &mut Report) -> Result<()> {
    progress("ten times the cold pages that can be made");
    let quiet = paced.run(&cores.load, TURN)?.quantile(0.99);
    let before = resident(wisr.process.pid())?;
    let cold = Arc::new(Cold::default());
    let (hits, peak) = std::thread::scope(|scope| -> Result<(Measured, u64)> {
        let asking = scope.spawn(|| pinned(&cores.load[..1], || ask_cold(wisr, &cold)));
        let hits = paced.run(&cores.load, OVERLOAD)?;
        let peak = resident(wisr.process.pid())?;
        asking
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((hits, peak))
    })?;
    let over = Instant::now();
    once(wisr.site, &get("/busy/after", ""))?;
    let recovery = over.elapsed().as_secs_f64();
    for gauge in ["wisr_generations_waiting", "wisr_generations_running"] {
        wisr.until(gauge, 0.0, RECOVERY)?;
    }
    let rest = over.elapsed().as_secs_f64();
    let count = |of: &AtomicUsize| vec![of.load(Ordering::Relaxed) as f64];
    report.section("Overload: 12,800 hits/s beside ten times the cold pages that can be made");
    report.ratio(
        "p99 of hits, overloaded / alone",
        vec![hits.quantile(0.99) / quiet],
        None,
    );
    report.row("cold pages asked for", count(&cold.asked), "", None);
    report.row("cold pages made", count(&cold.made), "", None);
    report.row("readers told 503", count(&cold.refused), "", None);
    report.row("longest wait for either", count(&cold.longest), "ms", None);
    report.row(
        "memory more",
        vec![peak.saturating_sub(before) as f64 / 1e6],
        "MB",
        None,
    );
    report.row(
        "a cold page, after the last answer",
        vec![recovery],
        "s",
        None,
    );
    report.row("until the queue is empty", vec![rest], "s", None);
    Ok(())
}

/// Asks for cold pages at ten times the rate at which they can be made, and waits for all answers.
fn ask_cold(wisr: &Running, cold: &Arc<Cold>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let end = tokio::time::Instant::now() + OVERLOAD;
        let mut tick = tokio::time::interval(Duration::from_secs_f64(0.1 / SUSTAINABLE));
        let mut readers = tokio::task::JoinSet::new();
        while tokio::time::Instant::now() < end {
            tick.tick().await;
            let number = cold.asked.fetch_add(1, Ordering::Relaxed);
            let request = get(&format!("/busy/cold-{number}"), "connection: close\r\n");
            readers.spawn(wait(wisr.site, request, Arc::clone(cold)));
        }
        while let Some(ended) = readers.join_next().await {
            ended?.context("a reader of a cold page")?;
        }
        Ok(())
    })
}

async fn wait(addr: std::net::SocketAddr, request: Vec<u8>, cold: Arc<Cold>) -> Result<()> {
    let start = Instant::now();
    let mut stream = tokio::net::TcpStream::connect(addr).await?;
    stream.write_all(&request).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let waited = start.elapsed().as_millis() as usize;
    cold.longest.fetch_max(waited, Ordering::Relaxed);
    let counter = match answer.get(9..12) {
        Some(b"200") => &cold.made,
        Some(b"503") => &cold.refused,
        _ => anyhow::bail!("neither 200 nor 503: {}", String::from_utf8_lossy(&answer)),
    };
    counter.fetch_add(1, Ordering::Relaxed);
    Ok(())
}
