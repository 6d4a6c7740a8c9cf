//! `Guest`: a module with its limits and grants, which renders one route.

use super::bindings::exports::wisr::page::paths;
use super::convert::{self, Decision};
use super::engine::Engine;
use super::limits::{CALL_BYTES, LISTING_BYTES, Limits};
use super::module::Module;
use super::outbound::{Client, Policy, SessionLimits};
use super::run::{Order, Run};
use super::trap::Stop;
use crate::page::{
    Context, Digest, Document, Failure, FailureKind, Fallback, Generation, Outcome, PathList,
    Pending, Render,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A module that renders one route, under that route's limits and grants.
pub struct Guest {
    engine: Engine,
    module: Arc<Module>,
    limits: Limits,
    policy: Arc<Policy>,
    client: Client,
    settings: Arc<BTreeMap<String, String>>,
}

impl Guest {
    /// A module as a route's renderer. `settings` are what `host.setting` returns.
    pub fn new(
        engine: &Engine,
        module: Arc<Module>,
        limits: Limits,
        outbound: Arc<Policy>,
        client: Client,
        settings: Arc<BTreeMap<String, String>>,
    ) -> Self {
        Self {
            engine: engine.clone(),
            module,
            limits,
            policy: outbound,
            client,
            settings,
        }
    }

    /// Bytes that one call may move: the largest result, and what comes with it.
    fn bound(&self) -> u64 {
        self.limits
            .page
            .max(self.limits.props)
            .saturating_add(CALL_BYTES)
    }

    async fn begin(&self, route: Arc<str>, bound: u64) -> Run<'_> {
        let Limits {
            fetches: requests,
            fetches_in_flight: in_flight,
            fetch_bytes: bytes,
            ..
        } = self.limits;
        let order = Order {
            engine: &self.engine,
            module: &self.module,
            limits: &self.limits,
            route: Arc::clone(&route),
            settings: Arc::clone(&self.settings),
            bound,
        };
        let session = |deadline| {
            let limits = SessionLimits {
                requests,
                in_flight,
                bytes,
            };
            let policy = Arc::clone(&self.policy);
            Some(self.client.session(policy, limits, deadline, route))
        };
        order.start(session).await
    }

    async fn produce(
        &self,
        run: &mut Run<'_>,
        context: &Context,
        known: Option<Digest>,
    ) -> Result<Outcome, Stop> {
        let instance = run.instantiate().await?;
        let page = self.module.page.load(&mut run.sandbox.store, &instance)?;
        let context = convert::context(context);

        let start = run.enter("static-props");
        let returned = page
            .call_static_props(&mut run.sandbox.store, &context)
            .await;
        run.cost.static_props = start.elapsed();
        let decided = convert::decision(returned?.map_err(Stop::Said)?, &self.limits)?;
        let props = match decided {
            Decision::Render(props) => props,
            Decision::Done(outcome) => return Ok(outcome),
        };
        if known.is_some_and(|known| known == Digest::of(&props.json)) {
            return Ok(Outcome::Unchanged(props));
        }

        // The props were checked to be the guest's own UTF-8.
        let data = String::from_utf8_lossy(&props.json);
        let start = run.enter("render");
        let returned = page
            .call_render(&mut run.sandbox.store, &context, &data)
            .await;
        run.cost.render = start.elapsed();
        let document = convert::document(returned?.map_err(Stop::Said)?, &self.limits)?;
        drop(data);
        Ok(Outcome::Page(props, document))
    }

    async fn list(&self, run: &mut Run<'_>, paths: &paths::GuestIndices) -> Result<PathList, Stop> {
        let instance = run.instantiate().await?;
        let paths = paths.load(&mut run.sandbox.store, &instance)?;
        run.enter("static-paths");
        let returned = paths.call_static_paths(&mut run.sandbox.store).await?;
        returned.map(convert::path_list).map_err(Stop::Said)
    }

    async fn make_shell(
        &self,
        run: &mut Run<'_>,
        paths: &paths::GuestIndices,
        context: &Context,
    ) -> Result<Document, Stop> {
        let instance = run.instantiate().await?;
        let paths = paths.load(&mut run.sandbox.store, &instance)?;
        let context = convert::context(context);
        run.enter("shell");
        let returned = paths.call_shell(&mut run.sandbox.store, &context).await?;
        convert::document(returned.map_err(Stop::Said)?, &self.limits)
    }
}

impl Render for Guest {
    fn module(&self) -> Digest {
        self.module.digest()
    }

    fn generate<'a>(
        &'a self,
        context: &'a Context,
        known: Option<Digest>,
    ) -> Pending<'a, Result<Generation, Failure>> {
        Box::pin(async move {
            let route = Arc::clone(&context.route);
            let mut run = self.begin(route, self.bound()).await;
            let meter = run.meter();
            let work = self.produce(&mut run, context, known);
            let ended = meter.run(self.limits.wall, work).await;
            let (outcome, cost) = run.end(ended).map_err(|failure| *failure)?;
            Ok(Generation { outcome, cost })
        })
    }

    fn shell<'a>(&'a self, context: &'a Context) -> Pending<'a, Result<Document, Failure>> {
        Box::pin(async move {
            let Some(paths) = &self.module.paths else {
                let message = "the page exports no `wisr:page/paths@0.1.0`, so it has no shell";
                return Err(Failure::new(FailureKind::Invalid, "shell", message));
            };
            let route = Arc::clone(&context.route);
            let mut run = self.begin(route, self.bound()).await;
            let meter = run.meter();
            let work = self.make_shell(&mut run, paths, context);
            let ended = meter.run(self.limits.wall, work).await;
            let ended = run.end(ended).map_err(|failure| *failure);
            ended.map(|(document, _)| document)
        })
    }

    fn static_paths(&self) -> Pending<'_, Result<PathList, Failure>> {
        Box::pin(async move {
            let Some(paths) = &self.module.paths else {
                return Ok(PathList {
                    paths: Vec::new(),
                    fallback: Fallback::Blocking,
                });
            };
            let label = Arc::from(self.module.digest().short());
            let mut run = self.begin(label, LISTING_BYTES).await;
            let meter = run.meter();
            let work = self.list(&mut run, paths);
            let ended = meter.run(self.limits.wall, work).await;
            let ended = run.end(ended).map_err(|failure| *failure);
            ended.map(|(paths, _)| paths)
        })
    }
}
