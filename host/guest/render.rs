//! `Guest`: a module with its limits and grants, which renders one route.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use wasmtime::component::Instance;

use super::bindings::wisr::page::page_types as wit;
use super::convert::{self, Decision};
use super::engine::Engine;
use super::limits::{CALL_BYTES, DRY_RUN, LISTING_BYTES, Limits};
use super::module::{LoadError, Module};
use super::outbound;
use super::sandbox::{Fittings, Sandbox};
use super::sink::Journal;
use super::trap::Stop;
use crate::page::{
    Context, Cost, Digest, Document, Failure, FailureKind, Fallback, Generation, Outcome, PathList,
    Pending, Render,
};

/// A module that renders one route, under that route's limits and grants.
pub struct Guest {
    engine: Engine,
    module: Arc<Module>,
    limits: Limits,
    policy: Arc<outbound::Policy>,
    client: outbound::Client,
    settings: Arc<BTreeMap<String, String>>,
}

/// One sandbox's life, from its making to its account.
struct Run<'a> {
    guest: &'a Guest,
    sandbox: Sandbox,
    started: Instant,
    /// What is being called, for the account.
    call: &'static str,
    /// Bytes that one call may move.
    bound: u64,
    cost: Cost,
}

impl Guest {
    /// A module as a route's renderer. `settings` are what `host.setting` returns.
    pub fn new(
        engine: &Engine,
        module: Arc<Module>,
        limits: Limits,
        outbound: Arc<outbound::Policy>,
        client: outbound::Client,
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
        let permit = self.engine.place().await;
        let started = Instant::now();
        let limits = &self.limits;
        let deadline = tokio::time::Instant::now() + limits.wall;
        let fittings = Fittings {
            journal: Journal::new(route, self.engine.next_generation()),
            session: self
                .client
                .session(Arc::clone(&self.policy), limits, deadline),
            settings: Arc::clone(&self.settings),
            cpu: limits.cpu,
            memory: limits.memory.min(self.engine.max_memory()),
            call: bound,
        };
        Run {
            guest: self,
            sandbox: Sandbox::new(self.engine.runtime(), fittings, permit),
            started,
            call: "instantiate",
            bound,
            cost: Cost::default(),
        }
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

    async fn list(&self, run: &mut Run<'_>) -> Result<PathList, Stop> {
        let Some(paths) = &self.module.paths else {
            return Ok(PathList {
                paths: Vec::new(),
                fallback: Fallback::Blocking,
            });
        };
        let instance = run.instantiate().await?;
        let paths = paths.load(&mut run.sandbox.store, &instance)?;
        run.enter("static-paths");
        let returned = paths.call_static_paths(&mut run.sandbox.store).await?;
        returned.map(convert::path_list).map_err(Stop::Said)
    }

    async fn make_shell(&self, run: &mut Run<'_>, context: &Context) -> Result<Document, Stop> {
        let Some(paths) = &self.module.paths else {
            run.enter("shell");
            let message = "the page exports no `wisr:page/paths@0.1.0`, so it has no shell";
            return Err(Stop::broken(FailureKind::Invalid, message));
        };
        let instance = run.instantiate().await?;
        let paths = paths.load(&mut run.sandbox.store, &instance)?;
        let context: wit::Context = convert::context(context);
        let start = run.enter("shell");
        let returned = paths.call_shell(&mut run.sandbox.store, &context).await;
        run.cost.render = start.elapsed();
        convert::document(returned?.map_err(Stop::Said)?, &self.limits)
    }

    async fn check(&self, run: &mut Run<'_>) -> Result<(), Checked> {
        let instance = run.instantiate().await?;
        let store = &mut run.sandbox.store;
        self.module
            .page
            .load(&mut *store, &instance)
            .map_err(Checked::WrongTypes)?;
        if let Some(paths) = &self.module.paths {
            paths.load(store, &instance).map_err(Checked::WrongTypes)?;
        }
        Ok(())
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
            let mut run = self.begin(Arc::clone(&context.route), self.bound()).await;
            let meter = run.sandbox.meter.clone();
            let work = self.produce(&mut run, context, known);
            let ended = meter.run(self.limits.wall, work).await;
            let (outcome, cost) = run.end(ended.unwrap_or_else(|cut| Err(Stop::Cut(cut))))?;
            Ok(Generation { outcome, cost })
        })
    }

    fn shell<'a>(&'a self, context: &'a Context) -> Pending<'a, Result<Document, Failure>> {
        Box::pin(async move {
            let mut run = self.begin(Arc::clone(&context.route), self.bound()).await;
            let meter = run.sandbox.meter.clone();
            let work = self.make_shell(&mut run, context);
            let ended = meter.run(self.limits.wall, work).await;
            let ended = run.end(ended.unwrap_or_else(|cut| Err(Stop::Cut(cut))));
            ended.map(|(document, _)| document)
        })
    }

    fn static_paths(&self) -> Pending<'_, Result<PathList, Failure>> {
        Box::pin(async move {
            let label = Arc::from(self.module.digest().short());
            let mut run = self.begin(label, LISTING_BYTES).await;
            let meter = run.sandbox.meter.clone();
            let ended = meter.run(self.limits.wall, self.list(&mut run)).await;
            let ended = run.end(ended.unwrap_or_else(|cut| Err(Stop::Cut(cut))));
            ended.map(|(paths, _)| paths)
        })
    }
}

impl Run<'_> {
    async fn instantiate(&mut self) -> Result<Instance, Stop> {
        let instance = self.sandbox.instantiate(&self.guest.module.instance).await;
        self.cost.instantiate = self.started.elapsed();
        Ok(instance?)
    }

    fn enter(&mut self, call: &'static str) -> Instant {
        self.call = call;
        Instant::now()
    }

    /// The account of how it went. The sandbox goes with it.
    fn end<T>(mut self, ended: Result<T, Stop>) -> Result<(T, Cost), Failure> {
        let state = self.sandbox.store.data();
        let stderr = state.journal().close();
        self.cost.memory = state.memory_peak();
        self.cost.fetches = state.session().fetches();
        self.cost.cpu = self.sandbox.meter.spent();
        self.cost.wall = self.started.elapsed();
        match ended {
            Ok(value) => Ok((value, self.cost)),
            Err(stop) => {
                let frames = stop.frames();
                let (kind, message) = stop.explain(&self.guest.limits, self.bound, &stderr);
                Err(Failure {
                    kind,
                    call: self.call,
                    message,
                    stderr,
                    frames,
                    cost: self.cost,
                })
            }
        }
    }
}

/// Why a dry run ended early.
enum Checked {
    WrongTypes(wasmtime::Error),
    Stopped(Stop),
}

impl From<Stop> for Checked {
    fn from(stop: Stop) -> Self {
        Checked::Stopped(stop)
    }
}

/// Starts a module once, with nothing granted, to see that it starts and what its exports are:
/// wasmtime compares types only then.
pub(super) async fn dry_run(engine: &Engine, module: &Arc<Module>) -> Result<(), LoadError> {
    let guest = Guest::new(
        engine,
        Arc::clone(module),
        DRY_RUN,
        Arc::default(),
        outbound::Client::default(),
        Arc::default(),
    );
    let label = Arc::from(module.digest().short());
    let mut run = guest.begin(label, CALL_BYTES).await;
    let meter = run.sandbox.meter.clone();
    let ended = meter.run(DRY_RUN.wall, guest.check(&mut run)).await;
    let stopped = match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Checked::WrongTypes(error))) => {
            return Err(LoadError::WrongTypes(format!("{error:#}")));
        }
        Ok(Err(Checked::Stopped(stop))) => Err(stop),
        Err(cut) => Err(Stop::Cut(cut)),
    };
    match run.end(stopped) {
        Ok(_) => Ok(()),
        Err(failure) => Err(LoadError::StartUp(Box::new(failure))),
    }
}
