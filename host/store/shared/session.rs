//! `Session`: the one task that keeps this host and Redis together.
//!
//! It connects, makes up for what was missed both ways, closes the breaker, and follows the log.
//! Whatever fails ends the session; the next begins after a pause.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::breaker::Links;
use super::link::Link;
use super::log::Place;
use super::sharing::BEAT;
use super::{Core, Lane, Trouble, log};
use crate::store::marks::Mark;

/// The pause before another attempt; it doubles.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);

/// The most that is added to a pause, as a part of it: hosts must not come back all at once.
const JITTER: f64 = 0.3;

/// How long connecting and each step of making up may take: nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long Redis keeps a question for more of the log; the connection is known to live at least
/// this often.
const WAIT: Duration = Duration::from_millis(500);

/// Milliseconds that a probe stays.
const PROBE: u64 = 1_000;

/// A session that lasts this long has ended whatever was before.
const CALM: Duration = Duration::from_secs(10);

impl Core {
    /// Runs until dropped.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut attempt = 0;
        loop {
            self.breaker.try_again();
            let started = Instant::now();
            let ended = tokio::select! {
                ended = self.session() => ended,
                () = self.breaker.tripped() => Ok(()),
            };
            if let Err(why) = ended {
                self.breaker.open(&why);
            }
            if started.elapsed() > CALM {
                attempt = 0;
            }
            let pause = (PAUSE * (1 << attempt)).min(LONGEST);
            attempt = (attempt + 1).min(6);
            tokio::time::sleep(pause.mul_f64(1.0 + JITTER * fastrand::f64())).await;
        }
    }

    async fn session(self: &Arc<Self>) -> Result<(), Trouble> {
        let connect = async || {
            let connected = timeout(PATIENCE, self.server.connect(PATIENCE)).await;
            Ok::<_, Trouble>(connected.map_err(|_| Trouble::Unreachable)??)
        };
        let (mut control, pages, mut follower) =
            (connect().await?, connect().await?, connect().await?);
        self.look_at_policy(&mut control).await;
        self.look_at_shards(&mut control).await?;
        let mut place = self.catch_up(&mut control).await?;
        // What this host has to say comes first: whoever asks it afterwards was not answered too early.
        while let Some(told) = timeout(PATIENCE, self.tell(&mut control))
            .await
            .map_err(|_| Trouble::Slow)??
        {
            while place.at < told {
                self.advance(&mut follower, &mut place).await?;
            }
        }
        let (offset, _) = self.beat(&mut control).await?;
        let links = Arc::new(Links {
            control,
            pages,
            offset: AtomicI64::new(offset),
        });
        self.is_fit(&links).await?;
        self.follow_up(&mut links.control.clone()).await;
        self.breaker.close(links.clone());
        self.follow(&links, &mut follower, place).await
    }

    async fn follow(
        self: &Arc<Self>,
        links: &Links,
        follower: &mut Link,
        mut place: Place,
    ) -> Result<(), Trouble> {
        let mut beaten = Instant::now();
        loop {
            if self.owes() {
                self.handle.spawn(self.clone().settle());
            }
            self.advance(follower, &mut place).await?;
            self.count_waiting();
            if self.ledger.untold(1).is_some() {
                // Not here: the log must be read on for it to be done.
                self.handle.spawn(self.clone().publish());
            }
            if beaten.elapsed() > BEAT {
                beaten = Instant::now();
                self.compare(links, follower, &mut place).await?;
            }
        }
    }

    /// Compares the clocks, and where the log ends.
    async fn compare(
        &self,
        links: &Links,
        follower: &mut Link,
        place: &mut Place,
    ) -> Result<(), Trouble> {
        let (offset, end) = match self.beat(&mut links.control.clone()).await {
            Ok(beat) => beat,
            Err(why) => {
                // One of several before nobody asks; the log goes on.
                self.breaker.failed(Lane::Control, &why);
                return Ok(());
            }
        };
        self.breaker.succeeded(Lane::Control);
        links.offset.store(offset, Ordering::Relaxed);
        // Otherwise those that were known do for a while.
        let _ = self.look_at_shards(&mut links.control.clone()).await;
        if end.at < place.at || (end.at == place.at && end != *place) {
            // Another node answers, which has not heard the last.
            *place = self.catch_up(follower).await?;
        }
        let is_warned = self.noted.lock().warning.is_some();
        if is_warned {
            self.look_at_policy(&mut links.control.clone()).await;
        }
        Ok(())
    }

    /// Makes up for what was missed, both ways; from where the log goes on.
    async fn catch_up(&self, link: &mut Link) -> Result<Place, Trouble> {
        let synced = timeout(PATIENCE * 5, self.sync(link)).await;
        synced.map_err(|_| Trouble::Slow)?
    }

    /// Reads the log on from `place`; waits for more of it.
    async fn advance(&self, follower: &mut Link, place: &mut Place) -> Result<(), Trouble> {
        let wait = u64::try_from(WAIT.as_millis()).unwrap_or(u64::MAX);
        let read = log::after(follower, &self.names.control[2], place.at, Some(wait));
        let events = timeout(WAIT + self.config.timeout * 2, read)
            .await
            .map_err(|_| Trouble::Slow)??;
        for event in events {
            let (next, follows) = (event.place(), event.follows(place));
            let told = event.told(&self.origin).map_err(|_| Trouble::History)?;
            if !follows {
                // The log has forgotten what was between, which the marks themselves have not; or it
                // is another one.
                *place = self.catch_up(follower).await?;
                break;
            }
            *place = next;
            let marks: Vec<Mark> = told.marks.iter().map(|(mark, _)| mark.clone()).collect();
            self.ledger.adopt(told);
            self.purge(&marks);
            self.applied.send_replace(place.at);
        }
        self.follow_up(follower).await;
        self.noted.lock().heard = Some(self.clock.now());
        Ok(())
    }

    /// Forgets the pages that were purged.
    pub(super) fn purge(&self, marks: &[Mark]) {
        let Some(tiers) = self.tiers.upgrade() else {
            return;
        };
        let mut paths = Vec::new();
        for mark in marks {
            if let Mark::Purge(key) = mark {
                tiers.remove(key);
                if key.path() == key.as_str() {
                    paths.push(key.clone());
                }
            }
        }
        if !paths.is_empty() {
            let forget = async move { tiers.forget_variants(paths).await };
            self.handle.spawn(forget);
        }
    }

    /// Whether Redis takes what it is given, and as fast as readers need it to.
    async fn is_fit(&self, links: &Links) -> Result<(), Trouble> {
        for link in [&links.control, &links.pages] {
            let mut link = link.clone();
            let mut command = redis::cmd("SET");
            command.arg(&self.names.probe).arg(&self.origin);
            command.arg("PX").arg(PROBE);
            let set = timeout(self.config.timeout, link.ask(&command));
            let _: String = set.await.map_err(|_| Trouble::Slow)??;
        }
        Ok(())
    }

    /// Learns which primary of a Cluster has which keys.
    async fn look_at_shards(&self, link: &mut Link) -> Result<(), Trouble> {
        if link.is_cluster() {
            let mut command = redis::cmd("CLUSTER");
            let asked = timeout(PATIENCE, link.ask(command.arg("SLOTS")));
            self.shards.learn(asked.await.map_err(|_| Trouble::Slow)??);
        }
        Ok(())
    }

    /// Warns where Redis may forget invalidations.
    async fn look_at_policy(&self, link: &mut Link) {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg("maxmemory-policy");
        // Not everybody may ask; a Cluster answers for one of its nodes.
        let answer: Result<Vec<String>, _> = link.ask(&command).await;
        let Some(policy) = answer.ok().and_then(|mut answer| answer.pop()) else {
            return;
        };
        let warning = policy.starts_with("allkeys").then(|| {
            format!(
                "Redis has maxmemory-policy {policy}: it may forget invalidations, which makes every \
                 host tell all of them again. Set it to volatile-lfu"
            )
        });
        let before = std::mem::replace(&mut self.noted.lock().warning, warning.clone());
        if let Some(warning) = warning.filter(|warning| before.as_ref() != Some(warning)) {
            tracing::warn!("{warning}");
        }
    }
}
