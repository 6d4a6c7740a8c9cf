//! [`run`]: a store of its own process, so that its memory is told apart: filled, worn, and read under
//! a mixed load. What comes of it is one line of JSON on stdout.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use wisr::page::Digest;
use wisr::store::{self, Tiers};
use wisr::telemetry::Clock;
use wisr::telemetry::metrics::Metrics;

use crate::cpu::{peak, resident};
use crate::pages::{Press, key};

/// Threads that make pages, or read.
const THREADS: usize = 2;

/// Reads before and after the crawler.
const READS: usize = 200_000;

/// One page in so many reads is made anew.
const REWRITES: usize = 100;

/// A store, and what fills it.
struct Keeper {
    tiers: Arc<Tiers>,
    metrics: Arc<Metrics>,
    press: Press,
    pages: usize,
}

/// Does `what` with the store in `folder`: `fill` it with `pages` pages made by `module`, `wear` it by
/// writing them again until killed, `mix` reads, rewrites and a crawler over them, or `count` them.
///
/// # Errors
/// When the store cannot be opened, or loses a page.
pub(crate) fn run(what: &str, folder: &str, pages: &str, memory: &str, module: &str) -> Result<()> {
    // As the program does: memory would be counted in pages of 2 MiB.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()?;
    let told = runtime.block_on(async {
        let (opened, keeper) = Keeper::open(folder, pages.parse()?, memory.parse()?, module)?;
        let keeper = Arc::new(keeper);
        let mut told = match what {
            "fill" => keeper.fill().await?,
            "wear" => keeper.wear().await,
            "mix" => keeper.mix().await?,
            "count" => keeper.count().await,
            other => bail!("no load is called {other:?}"),
        };
        told["open"] = json!(opened);
        told["resident"] = json!(resident(std::process::id())?);
        told["peak"] = json!(peak(std::process::id())?);
        told["weight"] = json!(keeper.metrics.memory_bytes.get());
        anyhow::Ok(told)
    })?;
    println(&told)
}

#[expect(clippy::print_stdout, reason = "the parent reads it there")]
fn println(told: &Value) -> Result<()> {
    println!("{told}");
    Ok(())
}

impl Keeper {
    fn open(folder: &str, pages: usize, memory: usize, module: &str) -> Result<(f64, Self)> {
        let module = (0..32).map(|at| u8::from_str_radix(&module[at * 2..at * 2 + 2], 16));
        let module: Vec<u8> = module.collect::<Result<_, _>>()?;
        let module = Digest::from(<[u8; 32]>::try_from(module).ok().context("a digest")?);
        let metrics = Arc::new(Metrics::new());
        let config = store::Config {
            memory,
            folder: Some(Path::new(folder).to_owned()),
            disk: store::Space {
                most: store::Most::Unlimited,
                ..store::Space::default()
            },
        };
        let start = Instant::now();
        let tiers = Tiers::open(config, metrics.clone())?;
        let opened = start.elapsed().as_secs_f64();
        let keeper = Self {
            tiers,
            metrics,
            press: Press::new(module, Clock::system().now()),
            pages,
        };
        Ok((opened, keeper))
    }

    /// Writes all pages, then reads some.
    async fn fill(self: &Arc<Self>) -> Result<Value> {
        let start = Instant::now();
        self.write_all().await;
        self.tiers.synced().await?;
        let seconds = start.elapsed().as_secs_f64();
        ensure!(self.metrics.store_dropped.get() == 0, "pages were dropped");
        let after_fill = resident(std::process::id())?;
        let start = Instant::now();
        let reads = READS.min(self.pages);
        for _ in 0..reads {
            let number = fastrand::usize(..self.pages);
            let found = self.tiers.find(&key(number)).await;
            ensure!(found.is_some(), "page {number} is lost");
        }
        let read = start.elapsed().as_secs_f64();
        Ok(json!({
            "written": self.pages as f64 / seconds,
            "after-fill": after_fill,
            "read": reads as f64 / read,
        }))
    }

    /// Reads every page; how many there are.
    async fn count(&self) -> Value {
        let mut found = 0;
        for number in 0..self.pages {
            found += usize::from(self.tiers.find(&key(number)).await.is_some());
        }
        json!({ "found": found })
    }

    async fn wear(self: &Arc<Self>) -> Value {
        loop {
            self.write_all().await;
        }
    }

    async fn write_all(self: &Arc<Self>) {
        let next = Arc::new(AtomicUsize::new(0));
        let mut writers = JoinSet::new();
        for _ in 0..THREADS {
            let (keeper, next) = (self.clone(), next.clone());
            writers.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= keeper.pages {
                        return;
                    }
                    keeper.tiers.room().await;
                    keeper.write(number);
                }
            });
        }
        writers.join_all().await;
    }

    fn write(&self, number: usize) {
        let sequence = self.tiers.sequence();
        self.tiers.put(self.press.page(number, sequence));
    }

    /// Readers who prefer some pages, before and after a crawler that walks all of them.
    async fn mix(self: &Arc<Self>) -> Result<Value> {
        self.read_some(READS).await?;
        let before = self.read_some(READS).await?;
        let crawler = tokio::spawn({
            let keeper = self.clone();
            async move {
                for number in 0..keeper.pages {
                    keeper
                        .tiers
                        .find(&key(number))
                        .await
                        .context("a lost page")?;
                }
                anyhow::Ok(())
            }
        });
        let mut during = (0, 0);
        while !crawler.is_finished() {
            let (hits, reads) = self.read_some(READS / 100).await?;
            during = (during.0 + hits, during.1 + reads);
        }
        crawler.await??;
        let after = self.read_some(READS).await?;
        let [before, during, after] =
            [before, during, after].map(|(hits, reads)| hits as f64 / reads.max(1) as f64);
        Ok(json!({ "before": before, "during": during, "after": after }))
    }

    /// Hits in memory, and reads.
    async fn read_some(&self, reads: usize) -> Result<(usize, usize)> {
        let mut hits = 0;
        for read in 0..reads {
            let number = self.liked();
            if read % REWRITES == 0 {
                self.write(number);
            } else if self.tiers.get_hot(&key(number)).is_some() {
                hits += 1;
            } else {
                let found = self.tiers.find(&key(number)).await;
                ensure!(found.is_some(), "page {number} is lost");
            }
        }
        Ok((hits, reads - reads.div_ceil(REWRITES)))
    }

    /// A page as readers choose them: the n-th most liked is asked for 1/n as often as the first
    /// (Zipf's law with exponent 1, by inversion of its continuous form).
    fn liked(&self) -> usize {
        let rank = (self.pages as f64).powf(fastrand::f64()) as usize - 1;
        // Liked pages are anywhere, not beside one another.
        (rank * 7919 + 13) % self.pages
    }
}
