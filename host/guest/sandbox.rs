//! `Sandbox`: one store with one instance, for one generation. Nothing is granted but clocks,
//! randomness and the hosts of its outbound policy; nothing survives it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use super::bindings::wisr::page::{host, page_types};
use super::limits::{
    CORE_INSTANCES, FIELD_BYTES, HANDLES, MEMORIES, RANDOM_BYTES, RESOURCES, TABLE_ELEMENTS, TABLES,
};
use super::meter::Meter;
use super::outbound::Session;
use super::revalidate::Caller;
use super::sink::{Journal, Stream};
use crate::page::{Fetch, Given};

/// A limit that a guest ran into. It travels through wasmtime as an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Overrun {
    /// It used up its CPU time.
    #[error("out of CPU time")]
    Cpu,
    /// It asked for more linear memory than it may hold; in bytes.
    #[error("{growth} bytes of memory asked for on top of {held}, of {limit}")]
    Memory {
        /// What it held.
        held: u64,
        /// What it asked for on top.
        growth: u64,
        /// What it may hold.
        limit: u64,
    },
    /// It asked for a table of so many elements.
    #[error("a table of {0} elements asked for")]
    Table(usize),
}

/// What a sandbox is made of, beside the module.
pub(super) struct Fittings {
    pub(super) journal: Journal,
    /// What it may do on the network; none for a module that is only tried.
    pub(super) session: Option<Session>,
    pub(super) settings: Arc<BTreeMap<String, String>>,
    /// CPU time.
    pub(super) cpu: Duration,
    /// Bytes of linear memory.
    pub(super) memory: u64,
    /// Bytes that one call may move between host and guest.
    pub(super) call: u64,
}

/// One store, and the place in the pool that it occupies.
pub(super) struct Sandbox {
    /// Dropped before the permit, so that its place is free when the permit is.
    pub(super) store: Store<State>,
    pub(super) meter: Meter,
    _permit: OwnedSemaphorePermit,
}

/// What the host keeps for one guest.
pub(super) struct State {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    session: Option<Session>,
    offline: Offline,
    limiter: Limiter,
    journal: Journal,
    settings: Arc<BTreeMap<String, String>>,
    given: Given,
    /// By what it has pages made anew.
    pub(super) caller: Caller,
    meter: Meter,
    cpu: Duration,
}

impl Sandbox {
    /// An empty sandbox in the place that `permit` stands for.
    pub(super) fn new(
        engine: &wasmtime::Engine,
        fittings: Fittings,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let meter = Meter::default();
        let call = usize::try_from(fittings.call).unwrap_or(usize::MAX);
        let mut store = Store::new(engine, State::new(fittings, meter.clone()));
        store.set_max_component_handles(HANDLES);
        store.set_hostcall_fuel(call);
        store.limiter(|state| &mut state.limiter);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|store| {
            let state = store.data();
            if state.meter.spent_now() > state.cpu {
                Err(Overrun::Cpu.into())
            } else {
                Ok(UpdateDeadline::Yield(1))
            }
        });
        Self {
            store,
            meter,
            _permit: permit,
        }
    }
}

impl State {
    fn new(fittings: Fittings, meter: Meter) -> Self {
        let wasi = WasiCtx::builder()
            .stdout(fittings.journal.sink(Stream::Stdout))
            .stderr(fittings.journal.sink(Stream::Stderr))
            .max_random_size(RANDOM_BYTES)
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(FIELD_BYTES);
        Self {
            wasi,
            http,
            table,
            session: fittings.session,
            offline: Offline,
            limiter: Limiter {
                limit: fittings.memory,
                held: 0,
                peak: 0,
                growth: 0,
            },
            journal: fittings.journal,
            settings: fittings.settings,
            given: Given::default(),
            caller: Caller::default(),
            meter,
            cpu: fittings.cpu,
        }
    }

    /// The most linear memory held at once, in bytes.
    pub(super) fn memory_peak(&self) -> u64 {
        self.limiter.peak
    }

    /// The outgoing requests, in order.
    pub(super) fn fetches(&self) -> Vec<Fetch> {
        self.session
            .as_ref()
            .map_or_else(Vec::new, Session::fetches)
    }

    /// The tags that the guest has given so far.
    pub(super) fn given(&mut self) -> Given {
        std::mem::take(&mut self.given)
    }

    /// What the guest said.
    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: match &mut self.session {
                Some(session) => session,
                None => &mut self.offline,
            },
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

/// The network of a module that is only tried: none.
struct Offline;

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for Offline {
    fn send_request(
        &mut self,
        _: ::http::Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Io,
    ) -> Box<dyn Future<Output = Result<(::http::Response<WasiBody>, Io), Error>> + Send> {
        Box::new(async { Err(Error::HttpRequestDenied) })
    }
}

impl page_types::Host for State {}

impl host::Host for State {
    fn log(&mut self, level: host::Level, message: String) {
        self.journal.log(level, &message);
    }

    fn setting(&mut self, key: String) -> Option<String> {
        self.settings.get(&key).cloned()
    }

    fn tag(&mut self, name: String) {
        self.given.add(&name);
    }
}

/// Bounds the sum of all linear memories: wasmtime's own limiter bounds each one alone.
///
/// It answers with an error where it could answer `false`: the guest's allocator would turn that
/// into an anonymous abort, while an error carries the backtrace of the greedy allocation.
struct Limiter {
    limit: u64,
    held: u64,
    peak: u64,
    /// The last growth allowed, to be taken back if it fails after all.
    growth: u64,
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.growth = 0;
        if maximum.is_some_and(|maximum| desired > maximum) {
            // The module's own bound: for it to deal with.
            return Ok(false);
        }
        let growth = desired.saturating_sub(current) as u64;
        let asked = self.held.saturating_add(growth);
        if asked > self.limit {
            let Self { held, limit, .. } = *self;
            return Err(Overrun::Memory {
                held,
                growth,
                limit,
            }
            .into());
        }
        self.growth = growth;
        self.held = asked;
        self.peak = self.peak.max(asked);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.held -= std::mem::take(&mut self.growth);
        Ok(())
    }

    fn table_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS {
            return Err(Overrun::Table(desired).into());
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES as usize
    }

    fn tables(&self) -> usize {
        TABLES as usize
    }

    fn memories(&self) -> usize {
        MEMORIES as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_store_is_bounded() {
        let places = Arc::new(tokio::sync::Semaphore::new(1));
        let fittings = Fittings {
            journal: Journal::new(Arc::from("/x"), 1),
            session: None,
            settings: Arc::default(),
            cpu: Duration::from_secs(1),
            memory: 1 << 20,
            call: 12_345,
        };
        let mut config = wasmtime::Config::new();
        let runtime = wasmtime::Engine::new(config.epoch_interruption(true)).unwrap();
        let permit = places.acquire_owned().await.unwrap();
        let mut sandbox = Sandbox::new(&runtime, fittings, permit);
        assert_eq!(sandbox.store.hostcall_fuel(), 12_345);
        assert_eq!(sandbox.store.max_component_handles(), HANDLES);
        let table = &mut sandbox.store.data_mut().table;
        let held = (0..=RESOURCES).filter(|_| table.push(()).is_ok()).count();
        assert_eq!(held, RESOURCES);
    }

    fn limiter() -> Limiter {
        Limiter {
            limit: 100,
            held: 0,
            peak: 0,
            growth: 0,
        }
    }

    #[test]
    fn a_table_grows_up_to_the_limit() {
        let mut limiter = limiter();
        assert!(limiter.table_growing(0, TABLE_ELEMENTS, None).unwrap());
        let refused = limiter.table_growing(0, TABLE_ELEMENTS + 1, None);
        let refused = refused.unwrap_err();
        let expected = Overrun::Table(TABLE_ELEMENTS + 1);
        assert_eq!(refused.downcast_ref(), Some(&expected));
    }

    #[test]
    fn memory_is_summed_and_a_failed_growth_is_taken_back() {
        let mut limiter = limiter();
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(!limiter.memory_growing(60, 80, Some(70)).unwrap());
        limiter
            .memory_grow_failed(wasmtime::Error::msg("beyond its own maximum"))
            .unwrap();
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        limiter
            .memory_grow_failed(wasmtime::Error::msg("no room in the pool"))
            .unwrap();
        assert_eq!((limiter.held, limiter.peak), (60, 100));
        let error = limiter.memory_growing(0, 41, None).unwrap_err();
        assert_eq!(
            error.downcast_ref(),
            Some(&Overrun::Memory {
                held: 60,
                growth: 41,
                limit: 100
            })
        );
    }
}
