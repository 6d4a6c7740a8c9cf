//! [`Bare`]: the least that rendering a page with wasmtime costs: the same engine settings and pool as
//! wisr's sandbox, with nothing around them.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use wasmtime::component::{Component, HasSelf, Linker, ResourceTable};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store,
    StoreLimits, StoreLimitsBuilder, UpdateDeadline,
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::add_only_http_to_linker_async as link_http;
use wasmtime_wasi_http::{Error as HttpError, RequestOptions, WasiBody, WasiHttpHooks};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::generations::{INSTANCES, MEMORY, Split, micros};
use bindings::wisr::page::host;
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

/// wasmtime alone.
pub(crate) struct Bare {
    engine: Engine,
    page: bindings::StaticPagePre<State>,
}

struct State {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: Offline,
    table: ResourceTable,
    limits: StoreLimits,
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
            hooks: &mut self.hooks,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

/// The page imports what it does not call here.
struct Offline;

type Answer = (
    http::Response<WasiBody>,
    Box<dyn Future<Output = Result<(), HttpError>> + Send>,
);

impl WasiHttpHooks for Offline {
    fn send_request(
        &mut self,
        _: http::Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), HttpError>> + Send>,
    ) -> Box<dyn Future<Output = Result<Answer, HttpError>> + Send> {
        Box::new(std::future::ready(Err(HttpError::HttpRequestDenied)))
    }
}

impl wit::Host for State {}

impl host::Host for State {
    fn log(&mut self, _: host::Level, _: String) {}

    fn setting(&mut self, _: String) -> Option<String> {
        None
    }

    fn tag(&mut self, _: String) {}
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
        link_http(&mut linker)?;
        wit::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
        host::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
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
        let state = State {
            wasi: WasiCtx::builder().build(),
            http: WasiHttpCtx::new(),
            hooks: Offline,
            table: ResourceTable::new(),
            limits,
        };
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
            params: vec![wit::Param {
                name: "id".to_owned(),
                values: vec!["1".to_owned()],
            }],
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
        pool.linear_memory_keep_resident(4 << 20)
            .table_keep_resident(512 << 10);
    }
    pool
}
