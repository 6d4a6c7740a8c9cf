//! `Session`: what an author's edits did so far: the plan, the last build, the state that the browser shows.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::watch::{Changes, Watch};
use crate::cli::build::{self, BuildReport, Failed, Plan, Profile, Progress};
use crate::cli::terminal;
use crate::http::{DevError, DevState};
use crate::release::Releases;

/// How many routes are named in one line.
const NAMED: usize = 5;

/// One run of `wisr dev`.
pub(super) struct Session {
    plan: Plan,
    state: watch::Sender<DevState>,
    releases: Arc<Releases>,
    failed: Vec<Failed>,
}

impl Session {
    /// A session that has built nothing yet.
    pub(super) fn new(plan: Plan, state: watch::Sender<DevState>, releases: Arc<Releases>) -> Self {
        Self {
            plan,
            state,
            releases,
            failed: Vec::new(),
        }
    }

    /// The source tree.
    pub(super) fn src(&self) -> &Path {
        &self.plan.site.src
    }

    /// Says what an author may have meant otherwise.
    pub(super) fn warn(&self) {
        for warning in &self.plan.warnings {
            terminal::say(format!("warning: {warning}"));
        }
    }

    /// The table of routes, and how their pages fare.
    pub(super) fn routes(&self) -> String {
        let broken = |file: &str| self.failed.iter().any(|failed| failed.file == file);
        let row = |route: &String, file: &String, fares: &str| {
            [route.clone(), file.clone(), fares.to_owned()]
        };
        let fares = |file: &str| if broken(file) { "does not compile" } else { "" };
        let pages = self.plan.pages.iter();
        let pages = pages.map(|page| row(&page.route, &page.file, fares(&page.file)));
        let failed = |fares| move |page: &Failed| row(&page.route, &page.file, fares);
        let rows: Vec<_> = pages
            .chain(self.plan.broken.iter().map(failed("does not compile")))
            .chain(self.plan.left_out.iter().map(failed("left out")))
            .collect();
        if rows.is_empty() {
            let here = self.src().display();
            return format!("no pages yet: `wisr new {here} --route about` makes one");
        }
        terminal::table(["route", "module", ""], &rows)
    }

    /// Builds what the plan says, has the server take it, and tells the browser.
    ///
    /// # Errors
    /// What stops all pages.
    pub(super) async fn build(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        self.state.send_modify(|state| state.building = true);
        let report = {
            let progress = Progress::start();
            build::build(&self.plan, Profile::Dev, None, None, &progress).await
        };
        match report {
            Ok(report) => {
                self.tell(&report, began);
                let moved =
                    !report.removed.is_empty() || report.built.iter().any(|built| built.changed);
                self.failed = report.failed;
                if moved {
                    // The folder's watcher would find it as well, but later than the author looks.
                    self.releases.scan().await;
                }
                self.publish(moved);
                Ok(())
            }
            Err(error) => {
                self.state.send_modify(|state| state.building = false);
                Err(error)
            }
        }
    }

    /// Builds again after every change, until it is aborted.
    pub(super) async fn follow(mut self, mut watch: Watch) {
        loop {
            let done = match watch.next().await {
                Ok(changes) => self.keep_up(changes).await,
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                terminal::say(format!("error: {error:#}"));
            }
        }
    }

    async fn keep_up(&mut self, changes: Changes) -> anyhow::Result<()> {
        if changes.sources {
            let known = self.plan.warnings.clone();
            self.plan = Plan::discover(self.plan.site.clone()).await?;
            if self.plan.warnings != known {
                self.warn();
            }
            self.build().await
        } else {
            for file in build::copy_files(&self.plan, Profile::Dev)? {
                terminal::say(format!("removed {file}"));
            }
            if changes.public {
                terminal::say("public files copied");
            }
            self.publish(true);
            Ok(())
        }
    }

    fn tell(&self, report: &BuildReport, began: Instant) {
        build::show_failures(report);
        for file in &report.removed {
            terminal::say(format!("removed {file}"));
        }
        let changed = report.built.iter().filter(|built| built.changed);
        let changed: Vec<&str> = changed.map(|built| built.route.as_str()).collect();
        let what = match (changed.as_slice(), report.failed.len(), self.failed.len()) {
            // Saving without a change, and cargo's own files, are not worth a line.
            ([], 0, 0) => return,
            ([], 0, _) => "everything compiles again".to_owned(),
            (_, 1.., _) => "without these: the pages that worked last stay".to_owned(),
            (routes, ..) if routes.len() > NAMED => format!("{} modules", routes.len()),
            (routes, ..) => routes.join(", "),
        };
        let took = terminal::span(began.elapsed());
        terminal::say(format!("built in {took}: {what}"));
    }

    /// Tells browsers how the build ended; they reload when what is served has `moved`.
    fn publish(&self, moved: bool) {
        let error = |failed: &Failed| DevError {
            title: format!("{} does not compile", failed.route),
            text: failed.message.clone(),
        };
        let errors = self.failed.iter().map(error).collect();
        self.state.send_modify(|state| {
            state.release += u64::from(moved);
            state.building = false;
            state.errors = errors;
        });
    }
}
