//! `Load`: keep-alive connections that ask as fast as they are answered, or at a given pace.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream as BlockingStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use crate::cpu::pin;

/// What one connection may take beyond the time of its round.
const GRACE: Duration = Duration::from_secs(30);

/// More than any response head here, and most of a body.
const BUFFER: usize = 32 << 10;

/// A load, ready to be put on a server any number of times.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) addr: SocketAddr,
    /// The connection of number `n` of `c` sends the requests of numbers `n`, `n + c`, `n + 2c`, counted
    /// round and round: all of them are sent, if there are more requests than connections.
    pub(crate) requests: Vec<Vec<u8>>,
    pub(crate) connections: usize,
    /// From one request of a connection to its next; none asks at once.
    pub(crate) pace: Option<Duration>,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) elapsed: Duration,
    /// Nanoseconds, sorted; one for each request.
    latencies: Vec<u32>,
}

impl Measured {
    pub(crate) fn requests(&self) -> usize {
        self.latencies.len()
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.requests() as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds below which this share of the requests was answered.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let last = self.requests().saturating_sub(1);
        let nanos = self.latencies.get((last as f64 * share) as usize);
        nanos.map_or(f64::NAN, |nanos| f64::from(*nanos) / 1e3)
    }
}

/// A GET of `path`, with further header lines.
pub(crate) fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: versus\r\naccept: */*\r\n{headers}\r\n")
        .into_bytes()
}

impl Load {
    /// 64 connections that all GET `path`.
    pub(crate) fn hits(addr: SocketAddr, path: &str, headers: &str) -> Self {
        Self {
            addr,
            requests: vec![get(path, headers)],
            connections: 64,
            pace: None,
        }
    }

    /// Puts the load on the server for `span`, from one thread on each of `cores`.
    ///
    /// # Errors
    /// When a connection fails or an answer is anything but 200.
    pub(crate) fn run(&self, cores: &[usize], span: Duration) -> Result<Measured> {
        let start = std::time::Instant::now();
        let parts: Vec<Result<Vec<u32>>> = std::thread::scope(|scope| {
            let part = |number| scope.spawn(move || self.part(cores, number, span));
            let threads: Vec<_> = (0..cores.len()).map(part).collect();
            let ends = threads.into_iter().map(|thread| thread.join());
            ends.map(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let elapsed = start.elapsed();
        let mut latencies = parts.into_iter().collect::<Result<Vec<_>>>()?.concat();
        ensure!(
            !latencies.is_empty(),
            "{} answered nothing in {span:?}",
            self.addr
        );
        latencies.sort_unstable();
        Ok(Measured { elapsed, latencies })
    }

    fn part(&self, cores: &[usize], number: usize, span: Duration) -> Result<Vec<u32>> {
        pin(&cores[number..=number])?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let end = Instant::now() + span;
            let mine = (number..self.connections).step_by(cores.len());
            let asked = mine.map(|connection| {
                let work = ask(self.clone(), connection, end);
                tokio::spawn(timeout(span + GRACE, work))
            });
            let mut latencies = Vec::new();
            for answered in asked.collect::<Vec<_>>() {
                latencies.extend(answered.await?.context("no answer")??);
            }
            Ok(latencies)
        })
    }
}

async fn ask(load: Load, connection: usize, end: Instant) -> Result<Vec<u32>> {
    let mut stream = TcpStream::connect(load.addr).await?;
    stream.set_nodelay(true)?;
    let mut number = connection;
    let mut buffer = vec![0; BUFFER];
    let mut latencies = Vec::with_capacity(4096);
    // Paced connections begin one after the other, not all at once.
    let share = connection as f64 / load.connections as f64;
    let mut next = Instant::now() + load.pace.unwrap_or_default().mul_f64(share);
    loop {
        if let Some(pace) = load.pace {
            sleep_until(next).await;
            next = (next + pace).max(Instant::now());
        }
        let start = Instant::now();
        if start >= end {
            return Ok(latencies);
        }
        stream
            .write_all(&load.requests[number % load.requests.len()])
            .await?;
        number += load.connections;
        answer(&mut stream, &mut buffer).await?;
        latencies.push(u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX));
    }
}

/// Reads one response to its end.
async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    let (head, length) = loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        ensure!(
            read > 0,
            "the server closed a connection that was to be kept"
        );
        filled += read;
        if let Some(end) = buffer[..filled]
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
        {
            break (end + 4, length(&buffer[..end])?);
        }
        ensure!(
            filled < buffer.len(),
            "a response head of more than {BUFFER} bytes"
        );
    };
    let mut missing = (head + length).saturating_sub(filled);
    while missing > 0 {
        let read = stream.read(buffer).await?;
        ensure!(read > 0, "the server closed a connection within a body");
        missing = missing.saturating_sub(read);
    }
    Ok(())
}

/// The length of the body of a response that must be 200.
fn length(head: &[u8]) -> Result<usize> {
    const NAME: &[u8] = b"content-length:";
    if !head.starts_with(b"HTTP/1.1 200") {
        bail!("instead of 200: {}", String::from_utf8_lossy(head));
    }
    let line = head
        .split(|byte| *byte == b'\n')
        .find(|line| line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME));
    let value = line.context("a response without content-length")?[NAME.len()..].trim_ascii();
    Ok(std::str::from_utf8(value)?.parse()?)
}

/// One request on a connection of its own: the head and the body of the response.
pub(crate) fn once(addr: SocketAddr, request: &[u8]) -> Result<(String, Vec<u8>)> {
    let mut stream = BlockingStream::connect_timeout(&addr, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(GRACE))?;
    stream.write_all(request)?;
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer)?;
        ensure!(
            read > 0,
            "the server closed the connection before its answer was complete"
        );
        all.extend_from_slice(&buffer[..read]);
        let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let whole = end + 4 + length(&all[..end])?;
        if all.len() >= whole {
            let head = String::from_utf8_lossy(&all[..end]).into_owned();
            return Ok((head, all[end + 4..whole].to_vec()));
        }
    }
}
