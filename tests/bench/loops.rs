//! [`Bare`]: the least that rendering a page with wasmtime costs: the same engine settings, pool and
//! limits as wisr's sandbox, and nothing around them. [`Own`] is wisr's sandbox and cache.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store, StoreLimits,
    StoreLimitsBuilder, UpdateDeadline,
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wisr::guest::{self, EngineConfig, Guest, Limits, outbound};
use wisr::isr::{self, Ask, Isr};
use wisr::page::{Cause, Context, Outcome, Page, Policy, Revalidate};
use wisr::store::{Marks, Memory};
use wisr::telemetry::metrics::Metrics;
use wisr::telemetry::{Clock, Incidents};

use bindings::wisr::page::page_types as wit;

mod bindings {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::allow_attributes_without_reason,
        reason = "generated: page.wit is where these words are documented"
    )]
    wasmtime::component::bindgen!({
        path: "guest-sdk/wit",
        world: "static-page",
        exports: { default: async },
    });
}

/// Instances at once, and bytes of memory for each: wisr's defaults, near enough.
const INSTANCES: u32 = 8;
const MEMORY: usize = 128 << 20;

/// Microseconds of one generation.
#[derive(Clone, Copy, Default)]
pub(crate) struct Split {
    pub(crate) instantiate: f64,
    pub(crate) static_props: f64,
    pub(crate) render: f64,
    /// Drop, and in wisr all that surrounds the calls.
    pub(crate) rest: f64,
    pub(crate) encode: f64,
    pub(crate) total: f64,
}

/// wasmtime alone.
pub(crate) struct Bare {
    engine: Engine,
    page: bindings::StaticPagePre<State>,
}

struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    limits: StoreLimits,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl Bare {
    pub(crate) fn new(module: &[u8]) -> Result<Self> {
        let mut config = Config::new();
        config
            .concurrency_support(false)
            .epoch_interruption(true)
            .memory_may_move(false)
            .max_wasm_stack(1 << 20)
            .async_stack_size(2 << 20)
            .native_unwind_info(false)
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
        let engine = Engine::new(&config)?;
        let component = Component::from_binary(&engine, module)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        // What the page calls only on other routes.
        linker.define_unknown_imports_as_traps(&component)?;
        let page = bindings::StaticPagePre::new(linker.instantiate_pre(&component)?)?;
        let weak = engine.weak();
        std::thread::spawn(move || {
            // Ends with the engine.
            while let Some(engine) = weak.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Ok(Self { engine, page })
    }

    pub(crate) async fn generate(&self) -> Result<Split> {
        let start = Instant::now();
        let limits = StoreLimitsBuilder::new().memory_size(MEMORY).build();
        let state = State { wasi: WasiCtx::builder().build(), table: ResourceTable::new(), limits };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.limits);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Yield(1)));
        let page = self.page.instantiate_async(&mut store).await?;
        let page = page.wisr_page_page();
        let instantiated = Instant::now();
        let context = wit::Context {
            route: "/p/[id]".to_owned(),
            path: "/p/1".to_owned(),
            params: vec![wit::Param { name: "id".to_owned(), values: vec!["1".to_owned()] }],
            query: Vec::new(),
            cause: wit::Cause::OnDemand,
        };
        let outcome = page.call_static_props(&mut store, &context).await?;
        let wit::Outcome::Props(props) = outcome.map_err(|said| anyhow!(said))? else {
            return Err(anyhow!("the page is no page"));
        };
        let prepared = Instant::now();
        let document = page.call_render(&mut store, &context, &props.data).await?;
        let rendered = Instant::now();
        drop((store, document.map_err(|said| anyhow!(said))?));
        Ok(Split {
            instantiate: micros(instantiated - start),
            static_props: micros(prepared - instantiated),
            render: micros(rendered - prepared),
            rest: micros(rendered.elapsed()),
            encode: 0.0,
            total: micros(start.elapsed()),
        })
    }
}

fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES)
        .total_stacks(INSTANCES)
        .total_core_instances(INSTANCES * 64)
        .total_memories(INSTANCES * 4)
        .total_tables(INSTANCES * 16)
        .max_memory_size(MEMORY)
        .decommit_batch_size(16)
        .pagemap_scan(Enabled::Auto);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.linear_memory_keep_resident(4 << 20).table_keep_resident(512 << 10);
    }
    pool
}

/// wisr's own sandbox, and its cache around it.
pub(crate) struct Own {
    page: Arc<Page>,
    isr: Isr,
    context: Context,
    _threads: tokio::runtime::Runtime,
}

impl Own {
    pub(crate) async fn new(module: &[u8]) -> Result<Self> {
        let engine = guest::Engine::new(EngineConfig {
            cache: None,
            instances: INSTANCES,
            max_memory: MEMORY as u64,
            fast_compile: false,
            compile_threads: 2,
        })?;
        let module = engine.load(module.to_vec()).await?;
        let client = outbound::Client::new(outbound::ClientConfig::default())?;
        let settings = Arc::new(BTreeMap::new());
        let guest = Guest::new(&engine, module, Limits::default(), Arc::default(), client, settings);
        let policy = Policy {
            revalidate: Revalidate::Never,
            max_stale: Duration::from_secs(3600),
            render_on_change: false,
            concurrency: INSTANCES as usize,
        };
        let page = Arc::new(Page { route: Arc::from("/p/[id]"), renderer: Arc::new(guest), policy });
        let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let metrics = Arc::new(Metrics::new());
        let isr = Isr::new(
            isr::Config { concurrency: INSTANCES as usize, queue: 8, wait: Duration::from_secs(10) },
            isr::Parts {
                store: Arc::new(Memory::new(64 << 20, metrics.clone())),
                marks: Arc::new(Marks::default()),
                clock: Clock::system(),
                runtime: threads.handle().clone(),
                incidents: Arc::new(Incidents::default()),
                metrics,
            },
        );
        let context = Context {
            route: page.route.clone(),
            path: "/p/1".to_owned(),
            params: params(),
            query: Vec::new(),
            cause: Cause::OnDemand,
        };
        Ok(Self { page, isr, context, _threads: threads })
    }

    /// What the sandbox takes, from nothing to a checked document.
    pub(crate) async fn generate(&self) -> Result<Split> {
        let start = Instant::now();
        let generation = self.page.renderer.generate(&self.context, None).await;
        let generation = generation.map_err(|failure| anyhow!(failure.message))?;
        anyhow::ensure!(matches!(generation.outcome, Outcome::Page(..)), "the page is no page");
        let cost = generation.cost.clone();
        drop(generation);
        Ok(Split::of(&cost, micros(start.elapsed())))
    }

    /// What a call of the revalidate endpoint takes, from the router to the stored entry.
    pub(crate) async fn revalidate(&self) -> Result<Split> {
        let start = Instant::now();
        let ask = Ask::new(self.page.clone(), "/p/1", params(), Vec::new());
        let entry = self.isr.revalidate(ask, false).await;
        let entry = entry.map_err(|refused| anyhow!(refused.as_str())).context("revalidating")?;
        Ok(Split::of(&entry.cost, micros(start.elapsed())))
    }
}

fn params() -> Vec<wisr::page::Param> {
    vec![wisr::page::Param { name: "id".to_owned(), values: vec!["1".to_owned()] }]
}

impl Split {
    fn of(cost: &wisr::page::Cost, total: f64) -> Self {
        let [instantiate, static_props, render, encode] =
            [cost.instantiate, cost.static_props, cost.render, cost.encode].map(micros);
        let rest = total - instantiate - static_props - render - encode;
        Self { instantiate, static_props, render, rest, encode, total }
    }
}

fn micros(span: Duration) -> f64 {
    span.as_secs_f64() * 1e6
}
