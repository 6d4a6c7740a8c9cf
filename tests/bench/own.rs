//! [`Own`]: wisr's sandbox, and its cache around it, without the doors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use tokio::runtime::Handle;
use wisr::guest::{self, CompileLimits, Compiler, EngineConfig, Grants, Guest, Limits, outbound};
use wisr::isr::{self, Ask, Isr};
use wisr::page::{Cause, Context, Cost, Outcome, Page, Policy, Revalidate};
use wisr::store::{self, Tiers};
use wisr::telemetry::metrics::Metrics;
use wisr::telemetry::{Clock, Incidents};

use crate::generations::{INSTANCES, MEMORY, Split, micros};

/// wisr's own sandbox, and its cache around it.
pub(crate) struct Own {
    page: Arc<Page>,
    isr: Isr,
    context: Context,
}

impl Own {
    /// The cache's generations run on `runtime`.
    pub(crate) async fn new(module: &[u8], runtime: Handle) -> Result<Self> {
        let engine = guest::Engine::new(EngineConfig {
            cache: None,
            state: None,
            instances: INSTANCES,
            max_memory: MEMORY as u64,
            compiler: Compiler::InProcess,
            compile: CompileLimits::default(),
            fast_compile: false,
            quick: u64::MAX,
            compile_threads: 2,
        })?;
        let module = engine.load(module.to_vec()).await?;
        let client = outbound::Client::new(outbound::ClientConfig::default())?;
        let settings = Arc::new(BTreeMap::new());
        let guest::Role::Page(exports) = *module.role() else {
            anyhow::bail!("the module is no page");
        };
        let grants = Grants {
            engine,
            limits: Limits::default(),
            outbound: Arc::default(),
            client,
            settings,
            may_revalidate: false,
        };
        let guest = Guest::new(module, exports, grants);
        let policy = Policy {
            revalidate: Revalidate::Never,
            max_stale: Duration::from_secs(3600),
            render_on_change: false,
            concurrency: INSTANCES as usize,
        };
        let page = Arc::new(Page {
            route: Arc::from("/p/[id]"),
            renderer: Arc::new(guest),
            policy,
        });
        let metrics = Arc::new(Metrics::new());
        let in_memory = store::Config {
            memory: 64 << 20,
            folder: None,
            disk: wisr::store::Space::default(),
        };
        let isr = Isr::new(
            isr::Config {
                concurrency: INSTANCES as usize,
                queue: 8,
                wait: Duration::from_secs(10),
                await_module: false,
            },
            isr::Parts {
                store: Tiers::open(in_memory, metrics.clone())?,
                clock: Clock::system(),
                runtime,
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
        Ok(Self { page, isr, context })
    }

    /// What the sandbox takes, from nothing to a checked document.
    pub(crate) async fn generate(&self) -> Result<Split> {
        let start = Instant::now();
        let generation = self.page.renderer.generate(&self.context, None).await;
        let generation = generation.map_err(|failure| anyhow!(failure.message))?;
        anyhow::ensure!(
            matches!(generation.outcome, Outcome::Page(..)),
            "the page is no page"
        );
        let cost = generation.cost.clone();
        drop(generation);
        Ok(split(&cost, micros(start.elapsed())))
    }

    /// What a call of the revalidate endpoint takes, from the router to the stored entry.
    pub(crate) async fn revalidate(&self) -> Result<Split> {
        let start = Instant::now();
        let ask = Ask::new(self.page.clone(), "/p/1", params(), Vec::new());
        self.isr.announce([ask.key.clone()]).await;
        let entry = self.isr.renew(ask, &[], false).await;
        let entry = entry
            .map_err(|refused| anyhow!(refused.as_str()))
            .context("revalidating")?;
        Ok(split(&entry.cost, micros(start.elapsed())))
    }
}

fn params() -> Vec<wisr::page::Param> {
    vec![wisr::page::Param {
        name: "id".to_owned(),
        values: vec!["1".to_owned()],
    }]
}

fn split(cost: &Cost, total: f64) -> Split {
    let [instantiate, static_props, render, encode] = [
        cost.instantiate,
        cost.static_props,
        cost.render,
        cost.encode,
    ]
    .map(micros);
    let rest = total - instantiate - static_props - render - encode;
    Split {
        instantiate,
        static_props,
        render,
        rest,
        encode,
        total,
    }
}
