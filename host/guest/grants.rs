//! `Grants`: what a route's module may use, whatever its role: limits, hosts, settings, calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::engine::{Engine, Purpose};
use super::limits::Limits;
use super::module::Module;
use super::outbound::{Client, Policy, SessionLimits};
use super::run::{Order, Run};

/// What a module gets from its route's configuration.
#[derive(Clone)]
pub struct Grants {
    /// Where it runs.
    pub engine: Engine,
    /// What one run may use.
    pub limits: Limits,
    /// Which hosts it may reach.
    pub outbound: Arc<Policy>,
    /// By what it reaches them.
    pub client: Client,
    /// What `host.setting` returns.
    pub settings: Arc<BTreeMap<String, String>>,
    /// Whether an API route may have pages made anew.
    pub may_revalidate: bool,
}

impl Grants {
    /// Waits for a place and makes a sandbox in it. One call may move `bound` bytes.
    pub(super) async fn begin<'a>(
        &'a self,
        module: &'a Module,
        route: Arc<str>,
        bound: u64,
        purpose: Purpose,
    ) -> Run<'a> {
        let order = Order {
            engine: &self.engine,
            code: module.code(),
            module: module.digest(),
            limits: &self.limits,
            route: Arc::clone(&route),
            settings: Arc::clone(&self.settings),
            bound,
            purpose,
        };
        let session = |deadline| {
            let limits = SessionLimits {
                requests: self.limits.fetches,
                in_flight: self.limits.fetches_in_flight,
                bytes: self.limits.fetch_bytes,
            };
            let policy = Arc::clone(&self.outbound);
            Some(self.client.session(policy, limits, deadline, route))
        };
        order.start(session).await
    }
}
