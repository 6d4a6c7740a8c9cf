//! `Run`: one sandbox's life, from a place in the pool to the account of how it went.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmtime::component::Instance;

use super::code::Code;
use super::engine::{Engine, Purpose};
use super::frames::Place;
use super::limits::Limits;
use super::meter::{Cut, Meter};
use super::outbound::Session;
use super::runtime::Tier;
use super::sandbox::{Fittings, Sandbox};
use super::sink::Journal;
use super::trap::{Stop, brief_json, brief_lines};
use crate::page::{Cost, Digest, Failure, FailureKind, Given};

/// What is to run, and with what.
pub(super) struct Order<'a> {
    pub(super) engine: &'a Engine,
    pub(super) code: Arc<Code>,
    pub(super) module: Digest,
    pub(super) limits: &'a Limits,
    /// For the log.
    pub(super) route: Arc<str>,
    pub(super) settings: Arc<BTreeMap<String, String>>,
    /// Bytes that one call may move between host and guest.
    pub(super) bound: u64,
    pub(super) purpose: Purpose,
}

/// One sandbox and what is known of its run so far.
pub(super) struct Run<'a> {
    order: Order<'a>,
    /// What the order's limits come to on its code.
    limits: Limits,
    pub(super) sandbox: Sandbox,
    pub(super) cost: Cost,
    /// What `static-props` returned.
    pub(super) props: Option<Bytes>,
    started: Instant,
    /// What is being called.
    call: &'static str,
}

/// An absurd wall time must not overflow a clock.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Why a limit of time is not as it is set.
const HASTE: &str = "; the limit was raised, since the module ran on code compiled in haste until \
                     better code is made";

/// How long requests may outlive the generation that made them.
const GRACE: Duration = Duration::from_millis(500);

impl<'a> Order<'a> {
    /// Waits for a place and makes a sandbox in it. Its time runs from there. `session` makes what
    /// it may do on the network until its wall time is over.
    pub(super) async fn start(
        self,
        session: impl FnOnce(tokio::time::Instant) -> Option<Session>,
    ) -> Run<'a> {
        let permit = self.engine.place(self.purpose).await;
        let limits = self.limits.on(self.code.runtime.tier);
        let started = Instant::now();
        // Requests end a little later, so that it is the wall time that ends a guest who waits for
        // one, and not an error that the guest makes what it likes of.
        let deadline = tokio::time::Instant::now() + limits.wall.min(LONGEST) + GRACE;
        let fittings = Fittings {
            journal: Journal::new(
                Arc::clone(&self.route),
                self.engine.next_generation(),
                self.engine.repeats(),
            ),
            session: session(deadline),
            settings: Arc::clone(&self.settings),
            cpu: limits.cpu,
            memory: limits.memory.min(self.engine.max_memory()),
            call: self.bound,
        };
        Run {
            sandbox: Sandbox::new(&self.code.runtime.engine, fittings, permit),
            order: self,
            limits,
            cost: Cost::default(),
            props: None,
            started,
            call: "instantiate",
        }
    }
}

impl Run<'_> {
    /// Runs the module's start functions: guest code, under all limits.
    pub(super) async fn instantiate(&mut self) -> Result<Instance, Stop> {
        let code = &self.order.code.instance;
        let instance = code.instantiate_async(&mut self.sandbox.store).await;
        self.cost.instantiate = self.started.elapsed();
        Ok(instance?)
    }

    /// Notes what is called next.
    pub(super) fn enter(&mut self, call: &'static str) -> Instant {
        self.call = call;
        Instant::now()
    }

    /// The tags that the guest has given.
    pub(super) fn given(&mut self) -> Given {
        self.sandbox.store.data_mut().given()
    }

    /// The code that it runs.
    pub(super) fn code(&self) -> Arc<Code> {
        Arc::clone(&self.order.code)
    }

    /// How long it may take, waiting for the host included.
    pub(super) fn wall(&self) -> Duration {
        self.limits.wall
    }

    /// What measures it, to be held while the run is borrowed.
    pub(super) fn meter(&self) -> Meter {
        self.sandbox.meter.clone()
    }

    /// The account of how it went. The sandbox goes with it, before anybody asks where in the
    /// author's files it failed.
    pub(super) async fn end<T>(
        self,
        ended: Result<Result<T, Stop>, Cut>,
    ) -> Result<(T, Cost), Box<Failure>> {
        let (engine, module) = (self.order.engine, self.order.module);
        let code = Arc::clone(&self.order.code);
        let (mut failure, places) = match self.close(ended) {
            Ok(done) => return Ok(done),
            Err(failed) => failed,
        };
        let symbolizer = engine.symbolizer();
        symbolizer
            .tell(&mut failure, module, &code.debug, &places)
            .await;
        Err(failure)
    }

    /// The same, with the places where it failed by offsets in the module.
    pub(super) fn close<T>(
        mut self,
        ended: Result<Result<T, Stop>, Cut>,
    ) -> Result<(T, Cost), (Box<Failure>, Vec<Place>)> {
        let state = self.sandbox.store.data();
        let stderr = state.journal().close();
        self.cost.memory = state.memory_peak();
        self.cost.fetches = state.fetches();
        self.cost.cpu = self.sandbox.meter.spent();
        self.cost.wall = self.started.elapsed();
        match ended.unwrap_or_else(|cut| Err(Stop::Cut(cut))) {
            Ok(value) => Ok((value, self.cost)),
            Err(stop) => {
                let places = stop.places();
                let (kind, mut message) = stop.explain(&self.limits, self.order.bound, &stderr);
                let of_time = matches!(kind, FailureKind::Cpu | FailureKind::Wall);
                if of_time && self.order.code.runtime.tier == Tier::Baseline {
                    message.push_str(HASTE);
                }
                let failure = Box::new(Failure {
                    kind,
                    call: self.call.into(),
                    message: brief_lines(&message),
                    stderr,
                    frames: Vec::new(),
                    // Checked to be the guest's own UTF-8.
                    props: self
                        .props
                        .map(|json| brief_json(&String::from_utf8_lossy(&json))),
                    cost: self.cost,
                });
                Err((failure, places))
            }
        }
    }
}
