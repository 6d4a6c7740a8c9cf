//! Whether the server lives, is ready and keeps what it makes; and what it has counted.

use std::sync::Arc;

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::Admin;
use super::super::live::Sample;
use super::super::refusal::Refusal;
use super::operation::{Nothing, Operation, Told};
use crate::page::Timestamp;
use crate::store::{SharedHealth, StoreHealth};

/// What Prometheus calls the format of [`crate::telemetry::metrics::Metrics::encode`].
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether readers should be sent here.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Readiness {
    pub(in crate::admin) ready: bool,
    /// Why not.
    pub(in crate::admin) reasons: Vec<&'static str>,
    /// `ok`, or why what is made is not kept: pages are served all the same.
    pub(in crate::admin) store: String,
    pub(in crate::admin) shared: Shared,
}

/// What is shared with other hosts.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Shared {
    /// The state of the breaker before the shared tier; `off` without one.
    pub(in crate::admin) breaker: &'static str,
    /// Why it is not closed.
    pub(in crate::admin) reason: Option<String>,
    /// Invalidations that the other hosts are to be told.
    pub(in crate::admin) untold: usize,
}

impl Shared {
    /// Whether there is a shared tier at all.
    pub(in crate::admin) fn is_on(&self) -> bool {
        self.breaker != SharedHealth::Off.as_str()
    }
}

/// How the server is.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Overview {
    /// The release that serves.
    pub(in crate::admin) release: u64,
    /// Since when, in milliseconds since the Unix epoch.
    pub(in crate::admin) since: Timestamp,
    /// What time it is here.
    pub(in crate::admin) now: Timestamp,
    /// Routes of both kinds.
    pub(in crate::admin) routes: usize,
    /// Files that are not served.
    pub(in crate::admin) refused: usize,
    /// Incidents since the start.
    pub(in crate::admin) incidents: u64,
    pub(in crate::admin) readiness: Readiness,
    /// Why what is made is not kept, if so.
    pub(in crate::admin) trouble: Option<String>,
    pub(in crate::admin) memory: Memory,
}

/// What is in memory.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Memory {
    /// Pages.
    pub(in crate::admin) entries: i64,
    /// Bytes that they take of `store.memory`.
    pub(in crate::admin) bytes: i64,
    /// Bytes of the whole process, where the system tells.
    pub(in crate::admin) resident: Option<u64>,
}

/// Which samples are shown.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::admin) struct Since {
    /// Only those taken after this one's `at`.
    pub(in crate::admin) after: Option<u64>,
}

/// What went on in the last minutes.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Lately {
    /// Seconds between two samples.
    pub(in crate::admin) every: u64,
    /// Oldest first.
    pub(in crate::admin) samples: Vec<Sample>,
}

pub(super) fn operations() -> Vec<Operation> {
    let not_ready = &[(StatusCode::SERVICE_UNAVAILABLE, "Not ready")];
    vec![
        Operation::text("/livez", "Whether the server lives", "text/plain", |_| {
            "ok\n".to_owned()
        }),
        Operation::show("/readyz", "Whether readers should be sent here", ready).also(not_ready),
        Operation::text(
            "/metrics",
            "What was counted, for Prometheus",
            OPEN_METRICS,
            |admin| admin.parts.metrics.encode(),
        ),
        Operation::show("/api/overview", "How the server is", show),
        Operation::show("/api/live", "What went on in the last minutes", lately),
    ]
}

async fn ready(admin: Arc<Admin>, _: Nothing) -> Result<Told<Readiness>, Refusal> {
    let readiness = readiness(&admin);
    let status = match readiness.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    Ok(Told(status, readiness))
}

async fn show(admin: Arc<Admin>, _: Nothing) -> Result<Told<Overview>, Refusal> {
    Ok(overview(&admin).into())
}

async fn lately(admin: Arc<Admin>, since: Since) -> Result<Told<Lately>, Refusal> {
    let after = Timestamp::from_millis(since.after.unwrap_or(0));
    Ok(live(&admin, after).into())
}

/// The samples that were taken after `after`.
pub(in crate::admin) fn live(admin: &Admin, after: Timestamp) -> Lately {
    Lately {
        every: super::super::live::EVERY.as_secs(),
        samples: admin.live.since(after),
    }
}

fn readiness(admin: &Admin) -> Readiness {
    let mut reasons = Vec::new();
    if admin.parts.releases.current().id == 0 {
        reasons.push("the folder of modules was not read yet");
    }
    if !*admin.parts.is_ready.borrow() {
        reasons.push("the pages of the first release are being made");
    }
    Readiness {
        ready: reasons.is_empty(),
        reasons,
        store: admin.parts.isr.store_health().as_str().to_owned(),
        shared: shared(admin),
    }
}

fn shared(admin: &Admin) -> Shared {
    let isr = &admin.parts.isr;
    let health = isr.shared_health();
    Shared {
        breaker: health.as_str(),
        reason: health.reason().map(|reason| reason.to_string()),
        untold: isr.untold(),
    }
}

/// How the server is.
pub(in crate::admin) fn overview(admin: &Admin) -> Overview {
    let (parts, release) = (&admin.parts, admin.parts.releases.current());
    let trouble = match parts.isr.store_health() {
        StoreHealth::Ok => None,
        StoreHealth::Degraded(why) => Some(why.to_string()),
    };
    Overview {
        release: release.id,
        since: release.at,
        now: parts.isr.now(),
        routes: release.len(),
        refused: release.refused.len(),
        incidents: parts.incidents.count(),
        readiness: readiness(admin),
        trouble,
        memory: Memory {
            entries: parts.metrics.memory_entries.get(),
            bytes: parts.metrics.memory_bytes.get(),
            resident: resident(),
        },
    }
}

/// Bytes of memory that this process has (proc_pid_statm(5), the second field, in pages).
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
