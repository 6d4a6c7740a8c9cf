//! A history: readers and calls on three hosts under random faults, checked as it is made.
//!
//! `WISR_HISTORY_SECONDS=600 cargo test --test main shared::history` makes a long one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::Signal;
use serde_json::json;

use super::hosts::{hasty, until_breaker};
use super::proxy::{Proxy, Weather};
use super::redis::Redis;
use crate::client::Client;
use crate::origin::Origin;
use crate::site::{Running, wait_for};

/// How long a history is unless the environment says otherwise.
const SECONDS: u64 = 12;

/// How long readers read on after the last call.
const REST: Duration = Duration::from_millis(200);

/// Few, so that calls and readers meet.
const PATHS: [&str; 4] = ["/posts/1", "/posts/2", "/posts/3", "/posts/4"];

/// Hosts, each with a network of its own, and what they were told.
struct World {
    redis: Redis,
    origin: Origin,
    hosts: Vec<(Running, Proxy)>,
    calls: Vec<Call>,
    reads: Arc<Mutex<Vec<Read>>>,
    random: fastrand::Rng,
}

/// An acknowledged call: a purge, or that a page was made anew.
#[derive(Debug)]
struct Call {
    host: usize,
    path: &'static str,
    acknowledged: Instant,
    /// Whether it was said that the other hosts are told.
    propagated: bool,
    /// How often the origin had been asked when it was called for: what was read by then must not
    /// be shown any more.
    asked: u64,
}

/// What a reader was shown.
#[derive(Debug)]
struct Read {
    host: usize,
    path: &'static str,
    began: Instant,
    n: u64,
    verdict: String,
}

/// A reader who never rests until the flag is raised.
async fn read(
    host: usize,
    mut client: Client,
    reads: Arc<Mutex<Vec<Read>>>,
    over: Arc<AtomicBool>,
) {
    let mut turn = host;
    while !over.load(Ordering::Relaxed) {
        let path = PATHS[turn % PATHS.len()];
        turn += 1;
        let began = Instant::now();
        let shown = client.send("GET", path, &[], "").await.unwrap();
        assert_eq!(shown.status, 200, "{path}: {}", shown.text());
        reads.lock().push(Read {
            host,
            path,
            began,
            n: shown.n(),
            verdict: shown.verdict().to_owned(),
        });
    }
}

impl World {
    async fn begin(seed: u64) -> Option<Self> {
        let redis = Redis::start().await?;
        let origin = Origin::start().await;
        let mut hosts = Vec::new();
        for _ in 0..3 {
            let proxy = Proxy::to(redis.address).await;
            let host = hasty(&proxy.url()).start_on(origin.clone()).await;
            until_breaker(&host, "closed").await;
            hosts.push((host, proxy));
        }
        Some(Self {
            redis,
            origin,
            hosts,
            calls: Vec::new(),
            reads: Arc::default(),
            random: fastrand::Rng::with_seed(seed),
        })
    }

    fn any_path(&mut self) -> &'static str {
        PATHS[self.random.usize(..PATHS.len())]
    }

    async fn call(&mut self, host: usize, path: &'static str) {
        let asked = self.origin.count(path) as u64;
        let mode = ["purge", "regenerate"][self.random.usize(..2)];
        let call = json!({"paths": [path], "mode": mode});
        let told = self.hosts[host].0.revalidate(call).await;
        assert!([200, 202].contains(&told.status), "{}", told.text());
        self.calls.push(Call {
            host,
            path,
            acknowledged: Instant::now(),
            propagated: told.json()["propagated"] == true,
            asked,
        });
    }

    /// Calls, while readers at all hosts read as fast as they can and something is wrong.
    async fn storm(&mut self) {
        let over = Arc::new(AtomicBool::new(false));
        let mut readers = Vec::new();
        for number in 0..2 * self.hosts.len() {
            let host = number % self.hosts.len();
            let client = self.hosts[host].0.reader();
            readers.push(tokio::spawn(read(
                host,
                client,
                Arc::clone(&self.reads),
                Arc::clone(&over),
            )));
        }
        let before = self.failures_of_each().await;
        let harmed = self.fault().await;
        for _ in 0..self.random.usize(2..10) {
            let (host, path) = (self.random.usize(..self.hosts.len()), self.any_path());
            self.call(host, path).await;
            tokio::time::sleep(Duration::from_millis(self.random.u64(..50))).await;
        }
        tokio::time::sleep(REST).await;
        over.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.await.unwrap();
        }
        let after = self.failures_of_each().await;
        let is_steady = |host: &usize| !harmed.contains(host) && before[*host] == after[*host];
        let steady: Vec<usize> = (0..self.hosts.len()).filter(is_steady).collect();
        self.check(&steady);
    }

    /// Whatever a host shows after it has acknowledged a call was read after the call; and after another
    /// has, where nothing stands between the two.
    fn check(&self, steady: &[usize]) {
        let reads = std::mem::take(&mut *self.reads.lock());
        assert!(!reads.is_empty());
        for read in reads {
            let reaches = |call: &Call| {
                let both = [call.host, read.host];
                let is_heard = both.iter().all(|host| steady.contains(host));
                let is_told = call.host == read.host || (call.propagated && is_heard);
                is_told && call.acknowledged < read.began
            };
            let broken = self
                .calls
                .iter()
                .find(|call| call.path == read.path && reaches(call) && read.n <= call.asked);
            assert!(broken.is_none(), "{read:?} after {broken:?}");
            assert!(
                ["HIT", "MISS", "STALE"].contains(&&*read.verdict),
                "{read:?}"
            );
        }
    }

    /// Something is wrong from here on; with which hosts.
    async fn fault(&mut self) -> Vec<usize> {
        let host = self.random.usize(..self.hosts.len());
        let slow = Weather::Slow(Duration::from_millis(self.random.u64(50..400)));
        let proxy = &self.hosts[host].1;
        let all: Vec<usize> = (0..self.hosts.len()).collect();
        match self.random.u8(..6) {
            0 => proxy.turn(Weather::Black),
            1 => proxy.turn(Weather::Cut),
            2 => proxy.turn(slow),
            3 => {
                self.redis.signal(Signal::STOP);
                return all;
            }
            4 => {
                self.redis.kill();
                self.redis.launch().await;
                return all;
            }
            _ => return Vec::new(),
        }
        vec![host]
    }

    /// Everything works again, and whatever one host was told holds on all of them.
    async fn heal(&mut self) {
        self.redis.signal(Signal::CONT);
        for (_, proxy) in &self.hosts {
            proxy.turn(Weather::Fair);
        }
        for (host, _) in &self.hosts {
            until_breaker(host, "closed").await;
        }
        for path in PATHS {
            let calls = self.calls.iter().filter(|call| call.path == path);
            let latest = calls.map(|call| call.asked).max().unwrap_or(0);
            for (host, _) in &self.hosts {
                host.until(path, |shown| shown.n() > latest).await;
            }
        }
    }

    /// While nothing fails, each call costs one generation, whoever asks, and no host shows what was
    /// before it, not even once.
    async fn calm_round(&mut self) {
        let (host, path) = (self.random.usize(..3), self.any_path());
        for host in 0..3 {
            self.hosts[host]
                .0
                .until(path, |it| it.verdict() == "HIT")
                .await;
        }
        let before = self.origin.count(path);
        let failures = self.failures().await;
        self.call(host, path).await;
        let mut first = Vec::new();
        for (host, _) in &self.hosts {
            first.push(host.get(path).await.n());
        }
        let answers: Vec<u64> = self.all(path).await;
        if self.failures().await > failures {
            // A machine so busy that Redis was too slow is not calm.
            return;
        }
        assert_eq!(first, [before as u64 + 1; 3], "{path}");
        assert_eq!(answers, first, "{path}");
        assert_eq!(self.origin.count(path), before + 1, "{path}");
    }

    async fn failures(&self) -> f64 {
        self.failures_of_each().await.iter().sum()
    }

    async fn failures_of_each(&self) -> Vec<f64> {
        let mut failures = Vec::new();
        for (host, _) in &self.hosts {
            failures.push(host.metric("wisr_shared_failures_total").await);
        }
        failures
    }

    async fn all(&self, path: &str) -> Vec<u64> {
        wait_for("all hosts to settle", async || {
            let mut seen = Vec::new();
            for (host, _) in &self.hosts {
                let shown = host.get(path).await;
                if shown.verdict() != "HIT" {
                    return Err(shown.verdict().to_owned());
                }
                seen.push(shown.n());
            }
            Ok(seen)
        })
        .await
    }
}

#[tokio::test]
async fn nothing_that_was_read_before_a_call_is_shown_after_it() {
    let seed = fastrand::u64(..);
    let Some(mut world) = World::begin(seed).await else {
        return;
    };
    eprintln!("seed {seed}");
    let seconds = std::env::var("WISR_HISTORY_SECONDS");
    let seconds = seconds.map_or(SECONDS, |seconds| seconds.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        world.calm_round().await;
        world.storm().await;
        world.heal().await;
    }
}
