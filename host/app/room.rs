//! `Room`: what the kernel lets the server have of open files and threads, and who gets how many.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use rustix::process::{Resource, Signal, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::guest::Limits;
use crate::{admin, store};

/// Open files of the server itself: its folders, logs, timers and streams; and of each thread that
/// serves: two ports, their queues, a connection that waits.
const OWN: u64 = 36;
const OF_THREAD: u64 = 5;

/// Connections of pages that are kept for the next one, and the streams of compilations.
const BESIDE_FETCHES: u64 = 80;

/// Connections of operators without which they would be kept out.
const LEAST_ADMIN: u64 = 8;

/// Connections of readers without which it is not worth starting.
const LEAST: u64 = 16;

/// How the open files are shared out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shares {
    limit: u64,
    own: u64,
    admin: u64,
    disk: u64,
    guests: u64,
    files: u64,
}

impl Shares {
    /// Of `limit` open files, where `threads` serve and guests have `fetches` at once.
    fn of(limit: u64, threads: u64, fetches: u64) -> Self {
        Self {
            limit,
            own: OWN + OF_THREAD * threads,
            admin: (limit / 16).clamp(LEAST_ADMIN, admin::MAX_CONNECTIONS as u64),
            disk: store::open_files(limit) as u64,
            guests: (fetches + BESIDE_FETCHES).min(limit / 4),
            files: open_static_files(limit) as u64,
        }
    }

    fn reserved(&self) -> u64 {
        self.own + self.admin + self.disk + self.guests + self.files
    }

    /// What is left for readers.
    fn readers(&self) -> u64 {
        self.limit.saturating_sub(self.reserved())
    }

    /// Each part by its name.
    fn told(&self) -> String {
        let Self {
            limit,
            own,
            admin,
            disk,
            guests,
            files,
        } = self;
        format!(
            "of the {limit} files that this process may have open (ulimit -Hn; LimitNOFILE= of systemd, \
             --ulimit nofile= of containers), the admin port has {admin}, the store {disk}, what pages \
             fetch {guests}, static files {files}, and the server itself {own}"
        )
    }
}

/// Static files that are held open for readers who are slow to take them.
pub(super) fn open_static_files(limit: u64) -> usize {
    usize::try_from(limit / 16)
        .unwrap_or(usize::MAX)
        .clamp(8, 1024)
}

/// Takes as many open files as the operator allows at all: the usual limit of 1024 is there for
/// programs that still call `select`. Where readers could use them up, they get fewer connections:
/// the admin port, the disk and pages need theirs.
///
/// # Errors
/// When next to nothing would be left for readers.
pub(super) fn share_open_files(config: &mut Config) -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is (ulimit -n)");
    }
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // Pages and API routes have as many instances each.
    let guests = 2 * config.isr.concurrency as u64;
    let fetches = guests * u64::from(Limits::default().fetches_in_flight);
    let shares = Shares::of(limit, config.http.threads as u64, fetches);
    config.http.open_files = open_static_files(limit);
    config.admin.max_connections = usize::try_from(shares.admin)?;
    let (wanted, left) = (config.http.max_connections as u64, shares.readers());
    if wanted <= left {
        return Ok(());
    }
    let told = shares.told();
    ensure!(
        left >= LEAST.min(wanted),
        "too few open files: {told}, which leaves {left} for readers; allow at least {}",
        shares.reserved() + wanted.min(1_000)
    );
    config.http.max_connections = usize::try_from(left).unwrap_or(usize::MAX);
    tracing::warn!("server.connections is {left} instead of {wanted}: {told}");
    Ok(())
}

/// Threads that a server has, cores or not, with those that come and go; and for each core.
const THREADS: usize = 32;
const THREADS_OF_CORE: usize = 8;

/// How long it is waited for a thread that was let start.
const BEGUN: Duration = Duration::from_secs(10);

/// Sees that a server can start its threads, before one that is missing ends it halfway.
///
/// # Errors
/// When it cannot.
pub(crate) fn threads() -> anyhow::Result<()> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let needed = THREADS + THREADS_OF_CORE * cores;
    let had = try_threads(needed);
    ensure!(
        had == needed,
        "too few threads: this process can have {had} more, and needs {needed} (ulimit -u of its user; \
         pids.max of its cgroup: TasksMax= of systemd, --pids-limit of containers)"
    );
    Ok(())
}

/// How many threads can be at once, of so many.
fn try_threads(needed: usize) -> usize {
    const STACK: usize = 64 * 1024;
    let (begun, begins) = mpsc::channel();
    let mut held = Vec::new();
    let mut had = Vec::new();
    for _ in 0..needed {
        let (hold, until) = mpsc::channel::<()>();
        let begun = begun.clone();
        let started = thread::Builder::new().stack_size(STACK).spawn(move || {
            let _ = begun.send(());
            // Until its sender is gone.
            let _ = until.recv();
        });
        let Ok(started) = started else { break };
        held.push(hold);
        had.push(started);
    }
    for _ in &had {
        let _ = begins.recv_timeout(BEGUN);
    }
    drop(held);
    let count = had.len();
    for thread in had {
        let _ = thread.join();
    }
    count
}

/// Has a write beyond the limit of file size fail, as one on a full disk does; by default the kernel
/// ends the process.
pub(crate) fn outlive_large_files() {
    let signal = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()));
    if let Err(error) = signal {
        tracing::debug!("a file that becomes too large ends the server: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_get_what_nobody_else_needs() {
        for (limit, threads, fetches, expected) in [
            (1024, 2, 24, 1024 - 46 - 64 - 128 - 104 - 64),
            (160, 2, 24, 34),
            (1024, 64, 768, 1024 - 356 - 64 - 128 - 256 - 64),
            (100, 2, 24, 0),
            (524_288, 2, 24, 524_288 - 46 - 64 - 512 - 104 - 1024),
        ] {
            let shares = Shares::of(limit, threads, fetches);
            assert_eq!(shares.readers(), expected, "{shares:?}");
        }
        let told = Shares::of(1024, 2, 24).told();
        for part in [
            "1024",
            "admin port has 64",
            "the store 128",
            "fetch 104",
            "static files 64",
            "itself 46",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }

    #[test]
    fn threads_are_had_at_once_and_given_back() {
        assert_eq!(try_threads(50), 50);
    }
}
