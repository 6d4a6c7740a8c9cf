//! [`run`]: what it costs and gives that several hosts share pages through Redis.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::cpu::Cores;
use crate::load::{Load, get, once};
use crate::report::{Report, progress};
use crate::servers::Process;
use crate::site::{CONFIG, PAGE, Running, Site, invalidate, regenerate};

const ROUNDS: usize = 6;
const TURN: Duration = Duration::from_secs(1);

/// Hosts that share.
const HOSTS: usize = 3;

/// Readers of cold pages at each host, and how long they ask.
const READERS: usize = 8;
const COLD: Duration = Duration::from_secs(3);

/// Revalidations that are followed from one host to another.
const FOLLOWED: usize = 300;

/// Pages whose bytes in Redis are counted.
const COUNTED: usize = 500;

/// Tags that were invalidated before the calls that are timed: as many as are kept.
const TAGS: usize = 100_000;
const TAGS_AT_ONCE: usize = 1_000;
const CALLS: usize = 200;

/// Hits with the tier to hits without it, at most: noise.
const AT_MOST: f64 = 1.05;

/// The p99 of hits while Redis stands still, to before.
const STILL_AT_MOST: f64 = 1.2;

/// A Redis of this run's own.
struct Redis {
    process: Process,
    address: SocketAddr,
}

impl Redis {
    fn start(cores: &[usize]) -> Result<Self> {
        let free = TcpListener::bind("127.0.0.1:0")?;
        let address = free.local_addr()?;
        drop(free);
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &address.port().to_string()])
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null());
        let mut process = Process::start("redis-server", command, cores)?;
        process.listens(address)?;
        Ok(Self { process, address })
    }

    /// A number of `INFO`.
    fn info(&self, name: &str) -> Result<f64> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.write_all(b"INFO all\r\nQUIT\r\n")?;
        let prefix = format!("{name}:");
        for line in BufReader::new(stream).lines() {
            if let Some(value) = line?.strip_prefix(&prefix) {
                return Ok(value.trim().parse()?);
            }
        }
        anyhow::bail!("Redis has no {name}")
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.process.pid())
            .ok()
            .and_then(Pid::from_raw);
        Ok(kill_process(pid.context("a process has an id")?, signal)?)
    }
}

/// A host and its folder.
struct Host {
    wisr: Running,
    _site: Site,
}

fn host(module: &[u8], cores: &Cores, redis: Option<&Redis>) -> Result<Host> {
    let shared = redis.map(|redis| format!("[store]\nurl = \"redis://{}\"\n", redis.address));
    let config = format!("{CONFIG}{}", shared.unwrap_or_default());
    let site = Site::with(&config, &["page", "p/[id]", "busy/[busy]"], module)?;
    let wisr = site.serve(&cores.servers)?;
    wisr.settle()?;
    if redis.is_some() {
        let until = Instant::now() + Duration::from_secs(10);
        while wisr.metric("wisr_shared_breaker{state=\"closed\"} ")? < 1.0 {
            ensure!(Instant::now() < until, "the host does not share");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(Host { wisr, _site: site })
}

/// Measures the shared tier.
///
/// # Errors
/// When wisr itself cannot be measured.
pub(crate) fn run(module: &[u8], cores: &Cores, report: &mut Report) -> Result<()> {
    let redis = match Redis::start(&cores.load) {
        Ok(redis) => redis,
        Err(error) => {
            report.missing(format!(
                "the shared tier: {error:#} (apt-get install redis-server)"
            ));
            return Ok(());
        }
    };
    report.section("Shared: hosts that have their pages in common, on the same cores");
    hits(module, cores, &redis, report)?;
    together(module, cores, &redis, report)?;
    let hosts = [(); 2].map(|()| host(module, cores, Some(&redis)));
    let [a, b] = hosts;
    let (a, b) = (a?, b?);
    follow(&a.wisr, &b.wisr, report)?;
    bytes(&a.wisr, &redis, report)?;
    tags(&a.wisr, &redis, report)
}

fn hits(module: &[u8], cores: &Cores, redis: &Redis, report: &mut Report) -> Result<()> {
    let (alone, sharing) = (
        host(module, cores, None)?,
        host(module, cores, Some(redis))?,
    );
    let load = |host: &Host| Load::hits(host.wisr.site, PAGE, "").run(&cores.load, TURN);
    let (mut ratios, mut p99s, mut still) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        progress(&format!(
            "hits with and without the shared tier, round {round} of {ROUNDS}"
        ));
        let (without, with) = (load(&alone)?, load(&sharing)?);
        redis.signal(Signal::STOP)?;
        let stopped = load(&sharing);
        redis.signal(Signal::CONT)?;
        let stopped = stopped?;
        if round > 0 {
            ratios.push(without.per_second() / with.per_second());
            p99s.push(with.quantile(0.99) / without.quantile(0.99));
            still.push(stopped.quantile(0.99) / with.quantile(0.99));
        }
    }
    report.ratio("hits/s, without the tier / with it", ratios, Some(AT_MOST));
    report.ratio("p99 of hits, with the tier / without", p99s, None);
    let what = "p99 of hits, while Redis stands still / before";
    report.ratio(what, still, Some(STILL_AT_MOST));
    Ok(())
}

/// Cold pages a second, from one host without the tier and from three with it.
fn together(module: &[u8], cores: &Cores, redis: &Redis, report: &mut Report) -> Result<()> {
    let alone = host(module, cores, None)?;
    let hosts = (0..HOSTS).map(|_| host(module, cores, Some(redis)));
    let hosts: Vec<Host> = hosts.collect::<Result<_>>()?;
    let (mut one, mut three, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let before = operations(&hosts)?;
    let mut made = 0;
    for round in 0..ROUNDS {
        progress(&format!(
            "pages of three hosts together, round {} of {ROUNDS}",
            round + 1
        ));
        let single = cold(&[&alone], round)? as f64 / COLD.as_secs_f64();
        let all: Vec<&Host> = hosts.iter().collect();
        let pages = cold(&all, round)?;
        made += pages;
        let all = pages as f64 / COLD.as_secs_f64();
        one.push(single);
        three.push(all);
        ratios.push(all / single);
    }
    let after = operations(&hosts)?;
    report.row("cold pages, one host alone", one, "/s", None);
    report.row("cold pages, three hosts together", three, "/s", None);
    report.ratio("three hosts together / one alone", ratios, None);
    for (operation, count) in after {
        let count = count - before.get(operation).copied().unwrap_or(0.0);
        let each = vec![count / made as f64];
        report.row(format!("`{operation}` for each cold page"), each, "", None);
    }
    Ok(())
}

/// Readers at all hosts who ask for pages that nobody has; how many pages were made.
fn cold(hosts: &[&Host], round: usize) -> Result<usize> {
    let end = Instant::now() + COLD;
    let counts = std::thread::scope(|scope| {
        let mut readers = Vec::new();
        for (number, host) in hosts.iter().enumerate() {
            for reader in 0..READERS {
                readers.push(scope.spawn(move || -> Result<usize> {
                    let mut made = 0;
                    while Instant::now() < end {
                        let path = format!("/p/{round}-{number}-{reader}-{made}");
                        once(host.wisr.site, &get(&path, "connection: close\r\n"))?;
                        made += 1;
                    }
                    Ok(made)
                }));
            }
        }
        let ends = readers.into_iter().map(|reader| reader.join());
        ends.map(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<Vec<usize>>>()
    });
    Ok(counts?.iter().sum())
}

fn operations(hosts: &[Host]) -> Result<HashMap<&'static str, f64>> {
    let mut counts = HashMap::new();
    for operation in ["get", "acquire", "renew", "commit", "release"] {
        let name = format!("wisr_shared_operations_total{{operation=\"{operation}\"}} ");
        // One that was never sent is not told.
        let sent = hosts
            .iter()
            .map(|host| host.wisr.metric(&name).unwrap_or(0.0));
        counts.insert(operation, sent.sum());
    }
    Ok(counts)
}

/// The time from a call to one host until another shows what came of it.
fn follow(a: &Running, b: &Running, report: &mut Report) -> Result<()> {
    progress("from a call on one host to the new page on another");
    const FOLLOW: &str = "/p/followed";
    let generated = |host: &Running| -> Result<u64> {
        let entries = host.entries(FOLLOW)?;
        let at = entries["entries"][0]["generated"].as_u64();
        at.context("a page that was asked for has an entry")
    };
    let mut times = Vec::new();
    once(a.site, &get(FOLLOW, ""))?;
    once(b.site, &get(FOLLOW, ""))?;
    for _ in 0..FOLLOWED {
        let before = generated(b)?;
        let start = Instant::now();
        once(a.site, &regenerate(FOLLOW))?;
        loop {
            once(b.site, &get(FOLLOW, ""))?;
            let elapsed = start.elapsed();
            if generated(b)? > before {
                times.push(elapsed.as_secs_f64() * 1e3);
                break;
            }
            ensure!(
                elapsed < Duration::from_secs(10),
                "the other host does not follow"
            );
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| vec![times[(times.len() as f64 * share) as usize]];
    report.row(
        "`revalidate` on one host until another shows it: p50",
        at(0.5),
        "ms",
        None,
    );
    report.row("the same: p99", at(0.99), "ms", None);
    Ok(())
}

/// What Redis takes for a page, its lease included.
fn bytes(host: &Running, redis: &Redis, report: &mut Report) -> Result<()> {
    let before = redis.info("used_memory_dataset")?;
    for page in 0..COUNTED {
        once(host.site, &get(&format!("/p/counted-{page}"), ""))?;
    }
    let more = redis.info("used_memory_dataset")? - before;
    let each = vec![more / COUNTED as f64 / 1e3];
    report.row(
        "memory of Redis for each page, its lease included",
        each,
        "kB",
        None,
    );
    Ok(())
}

/// What a call for one tag takes where a hundred thousand are known, and what these take in Redis.
fn tags(host: &Running, redis: &Redis, report: &mut Report) -> Result<()> {
    progress("a hundred thousand tags");
    let before = redis.info("used_memory_dataset")?;
    for first in (0..TAGS).step_by(TAGS_AT_ONCE) {
        let tags: Vec<String> = (first..first + TAGS_AT_ONCE)
            .map(|n| format!("tag-{n}"))
            .collect();
        once(host.site, &invalidate(&tags.join("\",\"")))?;
    }
    let more = redis.info("used_memory_dataset")? - before;
    let mut times = Vec::new();
    for n in 0..CALLS {
        let start = Instant::now();
        once(host.site, &invalidate(&format!("tag-{n}")))?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let what = "a call for one of 100,000 tags, until all hosts can know";
    report.row(what, times, "ms", None);
    let each = vec![more / TAGS as f64];
    report.row(
        "memory of Redis for each tag, the log included",
        each,
        "B",
        None,
    );
    Ok(())
}
