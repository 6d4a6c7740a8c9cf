//! `Reloading`: takes up what changes in `wisr.toml` while the server runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;

use crate::config::{FILE, Reload, Reloader, Report, read};
use crate::http::Site;
use crate::release::Releases;
use crate::telemetry::{Clock, Incidents, Subject};

/// How long the file stays the same before it counts as written: half of it would mean something
/// else, and nothing of it the default of everything.
const SETTLE: Duration = Duration::from_millis(100);

/// What looks at the file, and whom it tells.
pub(super) struct Reloading {
    reloader: Reloader,
    releases: Arc<Releases>,
    site: Arc<Site>,
    incidents: Arc<Incidents>,
    clock: Clock,
}

impl Reloading {
    /// What applies what `reloader` finds.
    pub(super) fn new(
        reloader: Reloader,
        releases: &Arc<Releases>,
        site: &Arc<Site>,
        incidents: &Arc<Incidents>,
        clock: Clock,
    ) -> Self {
        Self {
            reloader,
            releases: Arc::clone(releases),
            site: Arc::clone(site),
            incidents: Arc::clone(incidents),
            clock,
        }
    }

    /// Looks at each `hangup`, and from time to time, until dropped.
    pub(super) async fn watch(&mut self, hangup: &mut Option<Signal>) {
        // Why the file could not be read, if so: told once.
        let mut unreadable = String::new();
        loop {
            let asked = tokio::select! {
                () = hung_up(hangup) => true,
                () = tokio::time::sleep(self.reloader.poll()) => false,
            };
            match self.settled(asked).await {
                Ok(Some(text)) => {
                    unreadable.clear();
                    let found = self.reloader.take(text);
                    self.apply(found).await;
                }
                Ok(None) => unreadable.clear(),
                Err(error) => {
                    let told = format!("{error:#}");
                    if asked || told != unreadable {
                        self.refuse(told.clone());
                        unreadable = told;
                    }
                }
            }
        }
    }

    /// What the file says, once it is written, if it is worth a word: it is another thing than
    /// before, or somebody asks. What variables name may have changed even where it has not.
    async fn settled(&self, asked: bool) -> anyhow::Result<Option<Option<String>>> {
        let mut seen = self.read().await?;
        if self.reloader.knows(seen.as_deref()) {
            return Ok(asked.then_some(seen));
        }
        loop {
            tokio::time::sleep(SETTLE).await;
            let again = self.read().await?;
            if again == seen {
                return Ok(Some(again));
            }
            seen = again;
        }
    }

    async fn read(&self) -> anyhow::Result<Option<String>> {
        let site = self.reloader.site().to_owned();
        tokio::task::spawn_blocking(move || read(&site)).await?
    }

    async fn apply(&self, found: Reload) {
        match found {
            Reload::Refused(error) => self.refuse(format!("{error:#}")),
            Reload::Changed(live, report) => {
                self.site.set(live.door);
                self.releases.reconfigure(live.routes).await;
                tell(&report);
            }
        }
    }

    fn refuse(&self, why: String) {
        let message = format!("{why}\nthe settings stay as they are");
        let now = self.clock.now();
        self.incidents
            .record(now, Subject::Server, "config", message, None);
    }
}

/// Without a terminal or a service manager nobody hangs up.
async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
}

fn tell(Report { applied, restart }: &Report) {
    match applied.as_slice() {
        [] => tracing::info!("{FILE} was read again: nothing changed for a running server"),
        keys => tracing::info!("{FILE} was read again, applied: {}", keys.join(", ")),
    }
    for key in restart {
        tracing::warn!("{FILE}: changes to `{key}` need a restart");
    }
}
