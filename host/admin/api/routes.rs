//! The routes of the release that serves, each with its module and its rules.

use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::super::Admin;
use super::super::refusal::Refusal;
use super::operation::{Nothing, Operation, Told};
use crate::guest::{Limits, Module};
use crate::page::{Digest, Revalidate, Timestamp};
use crate::release::{ApiRouted, Probation, Refusal as Refused, RouteConfig, Routed};
use crate::telemetry::Incident;

/// All routes, and what of the folder is not served.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Routes {
    /// The release that serves.
    pub(in crate::admin) release: u64,
    /// Since when, in milliseconds since the Unix epoch.
    pub(in crate::admin) since: Timestamp,
    /// Routes of pages, in the order in which they are tried.
    pub(in crate::admin) routes: Vec<PageRoute>,
    /// API routes.
    pub(in crate::admin) apis: Vec<ApiRoute>,
    /// What makes the page for paths without one.
    pub(in crate::admin) not_found: Option<PageRoute>,
    /// What makes the page for failures.
    pub(in crate::admin) error: Option<PageRoute>,
    /// What lies in the folder and is not served, or only in an older version.
    pub(in crate::admin) refused: Vec<Refused>,
}

/// A route of pages.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct PageRoute {
    #[serde(flatten)]
    pub(in crate::admin) common: Common,
    /// Seconds after which its pages are made anew, unless they say otherwise.
    pub(in crate::admin) revalidate: Revalidate,
    /// Seconds after which a stale page is shown only if making it anew fails.
    pub(in crate::admin) max_stale_seconds: u64,
    /// Generations at once.
    pub(in crate::admin) concurrency: usize,
    /// Whether `render` is left out where the props are what they were.
    pub(in crate::admin) render_on_change: bool,
    /// Query parameters that are part of the key.
    pub(in crate::admin) query: Vec<String>,
    /// How its module has done so far.
    pub(in crate::admin) trial: Probation,
}

/// An API route.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct ApiRoute {
    #[serde(flatten)]
    pub(in crate::admin) common: Common,
}

/// What all routes have.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Common {
    /// The route: `/posts/[id]`.
    pub(in crate::admin) route: String,
    /// The module's file, relative to the folder.
    pub(in crate::admin) file: PathBuf,
    /// The first digits of the module's digest.
    pub(in crate::admin) module: String,
    pub(in crate::admin) digest: Digest,
    /// `component` or `adapted-core`.
    pub(in crate::admin) kind: &'static str,
    /// Bytes of the file.
    pub(in crate::admin) size: u64,
    /// Bytes of the machine code.
    pub(in crate::admin) compiled_size: u64,
    /// Milliseconds that compiling it took; none if it had been compiled before.
    pub(in crate::admin) compile_ms: Option<u64>,
    pub(in crate::admin) limits: LimitsOf,
    /// The hosts that it may reach.
    pub(in crate::admin) outbound: Vec<String>,
    /// Incidents of it among those that are remembered.
    pub(in crate::admin) incidents: usize,
}

/// What one generation may use.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Limits")]
pub(in crate::admin) struct LimitsOf {
    pub(in crate::admin) cpu_ms: u64,
    pub(in crate::admin) wall_ms: u64,
    /// Bytes.
    pub(in crate::admin) memory: u64,
    /// Bytes.
    pub(in crate::admin) page: u64,
    /// Bytes.
    pub(in crate::admin) props: u64,
    pub(in crate::admin) fetches: u32,
    pub(in crate::admin) fetches_in_flight: u32,
    /// Bytes, each way.
    pub(in crate::admin) fetch_bytes: u64,
}

pub(super) fn operations() -> Vec<Operation> {
    let summary = "The routes that are served, and what of the folder is not";
    vec![Operation::show("/api/routes", summary, list)]
}

async fn list(admin: Arc<Admin>, _: Nothing) -> Result<Told<Routes>, Refusal> {
    Ok(routes(&admin).into())
}

/// All routes of the release that serves.
pub(in crate::admin) fn routes(admin: &Admin) -> Routes {
    let release = admin.parts.releases.current();
    let incidents = admin.parts.incidents.latest(usize::MAX);
    let failures = |route: &str| {
        let of = |it: &&Arc<Incident>| it.subject.route().is_some_and(|of| **of == *route);
        let counts = incidents.iter().filter(of).map(|it| it.count);
        usize::try_from(counts.sum::<u64>()).unwrap_or(usize::MAX)
    };
    let page = |routed: &Routed| PageRoute::of(routed, failures(&routed.page.route));
    let api = |routed: &ApiRouted| ApiRoute {
        common: Common::of(
            routed.pattern.as_str(),
            &routed.file,
            &routed.module,
            &routed.config,
            failures(routed.pattern.as_str()),
        ),
    };
    Routes {
        release: release.id,
        since: release.at,
        routes: release.table.iter().map(|(_, it)| page(it)).collect(),
        apis: release.apis.iter().map(|(_, it)| api(it)).collect(),
        not_found: release.not_found.as_deref().map(page),
        error: release.error.as_deref().map(page),
        refused: release.refused.clone(),
    }
}

impl Routes {
    /// What the route of this name has in common with all.
    pub(in crate::admin) fn find(&self, name: &str) -> Option<&Common> {
        let pages = self.routes.iter().map(|route| &route.common);
        let apis = self.apis.iter().map(|route| &route.common);
        pages.chain(apis).find(|common| common.route == name)
    }
}

impl PageRoute {
    fn of(routed: &Routed, incidents: usize) -> Self {
        let (policy, config) = (&routed.page.policy, &routed.config);
        let route = &routed.page.route;
        Self {
            common: Common::of(route, &routed.file, &routed.module, config, incidents),
            revalidate: policy.revalidate,
            max_stale_seconds: policy.max_stale.as_secs(),
            concurrency: policy.concurrency,
            render_on_change: policy.render_on_change,
            query: config.query.clone(),
            trial: routed.probation(),
        }
    }
}

impl Common {
    fn of(
        route: &str,
        file: &std::path::Path,
        module: &Module,
        config: &RouteConfig,
        incidents: usize,
    ) -> Self {
        let digest = module.digest();
        let entries = config.outbound.entries().iter();
        Self {
            route: route.to_owned(),
            file: file.to_owned(),
            module: digest.short(),
            digest,
            kind: module.kind().as_str(),
            size: module.size(),
            compiled_size: module.compiled_size(),
            compile_ms: module.compile_time().map(millis),
            limits: LimitsOf::of(&config.limits),
            outbound: entries.map(ToString::to_string).collect(),
            incidents,
        }
    }
}

impl LimitsOf {
    fn of(limits: &Limits) -> Self {
        Self {
            cpu_ms: millis(limits.cpu),
            wall_ms: millis(limits.wall),
            memory: limits.memory,
            page: limits.page,
            props: limits.props,
            fetches: limits.fetches,
            fetches_in_flight: limits.fetches_in_flight,
            fetch_bytes: limits.fetch_bytes,
        }
    }
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
