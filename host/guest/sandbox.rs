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
use super::held::{Account, Counted, Ledger};
use super::limits::{
    BODY_CHUNK, BODY_CHUNKS, CORE_INSTANCES, FIELD_BYTES, HANDLES, MEMORIES, RANDOM_BYTES,
    RESOURCES, TABLE_ELEMENTS, TABLES,
};
use super::meter::Meter;
use super::outbound::Session;
use super::revalidate::Caller;
use super::sink::{Journal, Stream};
use crate::page::{Count, Fetch, Given};

/// A limit that a guest ran into. It travels through wasmtime as an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Overrun {
    /// It used up its CPU time.
    #[error("out of CPU time")]
    Cpu,
    /// It asked for more memory than it may hold, or had the host hold more; in bytes.
    #[error("{growth} bytes of memory asked for on top of {held}, of {limit}")]
    Memory {
        /// What it held.
        held: u64,
        /// What of that the host held for it.
        by_host: u64,
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
    /// Bytes of memory, what the host holds included.
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
    ledger: Ledger,
    journal: Journal,
    settings: Arc<BTreeMap<String, String>>,
    given: Given,
    /// By what it has pages made anew.
    pub(super) caller: Caller,
    /// What its last call was about: as many as a call has fates.
    pub(super) counts: Vec<Option<Count>>,
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
        let account = Account::new(fittings.memory);
        let passed = fittings.session.as_ref();
        let passed = passed.map_or_else(Arc::default, Session::passed);
        Self {
            wasi,
            http,
            table,
            session: fittings.session,
            offline: Offline,
            limiter: Limiter {
                account: account.clone(),
                growth: 0,
            },
            ledger: Ledger::new(account, passed),
            journal: fittings.journal,
            settings: fittings.settings,
            given: Given::default(),
            caller: Caller::default(),
            counts: Vec::new(),
            meter,
            cpu: fittings.cpu,
        }
    }

    /// The most memory held at once, by the guest and for it, in bytes.
    pub(super) fn memory_peak(&self) -> u64 {
        self.account().peak()
    }

    /// What counts as its memory.
    pub(super) fn account(&self) -> &Account {
        self.ledger.account()
    }

    /// Counts what the host holds for the guest until its end.
    ///
    /// # Errors
    /// When that is more than it may have.
    pub(super) fn keep(&mut self, bytes: u64) -> Result<(), Overrun> {
        self.ledger.keep(bytes)
    }

    /// `wasi:http`, and what its resources hold.
    pub(super) fn counted(&mut self) -> Counted<'_> {
        let hooks: &mut dyn WasiHttpHooks = match &mut self.session {
            Some(session) => session,
            None => &mut self.offline,
        };
        Counted {
            http: WasiHttpCtxView {
                hooks,
                table: &mut self.table,
                ctx: &mut self.http,
            },
            ledger: &mut self.ledger,
        }
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
        self.counted().http
    }
}

/// The network of a module that is only tried: none.
struct Offline;

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for Offline {
    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        BODY_CHUNKS
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK
    }

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

/// Bounds the sum of all memories and tables: wasmtime's own limiter bounds each one alone.
///
/// It answers with an error where it could answer `false`: the guest's allocator would turn that
/// into an anonymous abort, while an error carries the backtrace of the greedy allocation.
struct Limiter {
    account: Account,
    /// The last growth allowed, to be taken back if it fails after all.
    growth: u64,
}

/// Bytes of an element of a table.
const ELEMENT: u64 = 8;

impl Limiter {
    fn grow(&mut self, growth: u64) -> wasmtime::Result<bool> {
        self.account.grow(growth)?;
        self.growth = growth;
        Ok(true)
    }
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
        self.grow(desired.saturating_sub(current) as u64)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.account.shrink(std::mem::take(&mut self.growth));
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.growth = 0;
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        if desired > TABLE_ELEMENTS {
            return Err(Overrun::Table(desired).into());
        }
        self.grow(ELEMENT * desired.saturating_sub(current) as u64)
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.account.shrink(std::mem::take(&mut self.growth));
        Ok(())
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
            journal: Journal::new(Arc::from("/x"), 1, Arc::default()),
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

    fn limiter(limit: u64) -> Limiter {
        Limiter {
            account: Account::new(limit),
            growth: 0,
        }
    }

    #[test]
    fn a_table_grows_up_to_the_limit_and_counts_as_memory() {
        let bytes = ELEMENT * TABLE_ELEMENTS as u64;
        let mut limiter = limiter(2 * bytes - 1);
        assert!(!limiter.table_growing(0, 2, Some(1)).unwrap());
        assert!(limiter.table_growing(0, TABLE_ELEMENTS, None).unwrap());
        let refused = limiter.table_growing(0, TABLE_ELEMENTS + 1, None);
        let refused = refused.unwrap_err();
        let expected = Overrun::Table(TABLE_ELEMENTS + 1);
        assert_eq!(refused.downcast_ref(), Some(&expected));
        let another = limiter.table_growing(0, TABLE_ELEMENTS, None);
        let another = another.unwrap_err();
        assert!(matches!(
            another.downcast_ref(),
            Some(Overrun::Memory { held, .. }) if *held == bytes
        ));
    }

    #[test]
    fn memory_is_summed_and_a_failed_growth_is_taken_back() {
        let mut limiter = limiter(100);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(!limiter.memory_growing(60, 80, Some(70)).unwrap());
        limiter
            .memory_grow_failed(wasmtime::Error::msg("beyond its own maximum"))
            .unwrap();
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        limiter
            .memory_grow_failed(wasmtime::Error::msg("no room in the pool"))
            .unwrap();
        let charge = limiter.account.charge(1).unwrap();
        assert_eq!(limiter.account.peak(), 100);
        let error = limiter.memory_growing(0, 41, None).unwrap_err();
        assert_eq!(
            error.downcast_ref(),
            Some(&Overrun::Memory {
                held: 61,
                by_host: 1,
                growth: 41,
                limit: 100
            })
        );
        drop(charge);
        assert!(limiter.memory_growing(0, 40, None).unwrap());
    }
}
