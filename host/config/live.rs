//! `Live`: what a running server takes up when `wisr.toml` changes: the rules of routes, the token of
//! the revalidate endpoint, the list of crawlers, draft mode, webhooks.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::file::{LiveTables, RenderWhen, Route};
use super::secret::long_enough;
use super::{Overrides, TOKEN_VARIABLE, webhook};
use crate::guest::{Limits, outbound};
use crate::page::{Policy, Revalidate};
use crate::release::{RouteConfig, RouteRules};
use crate::route::Pattern;
use crate::{http, isr};

/// How long a list of paths is gone by: an entry that nobody called about is there within minutes,
/// and a thousand routes list theirs a few times in a second.
const PATHS_REVALIDATE: Revalidate = Revalidate::After(300);

/// What can be told to a server that runs.
#[derive(Clone)]
pub struct Live {
    /// What is said of each route.
    pub routes: RouteRules,
    /// What the public door is told.
    pub door: http::Settings,
}

/// What the rules of routes depend on and cannot change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    /// Generations at once: each route has its share of them.
    pub(super) concurrency: usize,
    /// The memory limit that the sandboxes are made for, in bytes.
    pub(super) max_memory: u64,
}

impl Live {
    /// What the tables mean; and the routes whose memory limit the sandboxes are not made for.
    pub(super) fn resolve(
        tables: &LiveTables,
        frame: Frame,
        overrides: &Overrides,
    ) -> anyhow::Result<(Self, Vec<String>)> {
        let mut routes = Routes::resolve(tables, frame.concurrency)?;
        let capped = routes.cap(frame.max_memory);
        let token = overrides
            .token
            .clone()
            .or_else(|| tables.revalidate.token.clone());
        if let Some(token) = &token {
            let name = format!("the token ({TOKEN_VARIABLE}, or `revalidate.token`)");
            long_enough(token, &name, "renew any page")?;
        }
        let crawlers = tables.shell.crawlers.as_deref();
        let door = http::Settings {
            crawlers: crawlers.map_or_else(http::Crawlers::default, http::Crawlers::new),
            draft: tables.draft.resolve(token.as_deref())?.map(Arc::new),
            token: token.map(http::Secret::new),
            webhooks: Arc::new(webhook::resolve(&tables.webhooks)?),
        };
        let routes: RouteRules = Arc::new(move |route: &str| routes.of(route));
        Ok((Self { routes, door }, capped))
    }
}

/// The largest memory limit of any route, in bytes.
pub(super) fn max_memory(tables: &LiveTables) -> u64 {
    let limits = |table: &Route| table.memory.map(|memory| memory.0);
    let default = limits(&tables.defaults).unwrap_or(Limits::default().memory);
    let own = tables.routes.values().filter_map(limits);
    own.fold(default, u64::max)
}

/// Bytes of the largest page of any route and of the largest props.
pub(super) fn returned(tables: &LiveTables) -> u64 {
    let all = || std::iter::once(&tables.defaults).chain(tables.routes.values());
    let page = all().map(|table| table.page.map_or(Limits::default().page, |page| page.0));
    let props = all().map(|table| table.props.map_or(Limits::default().props, |props| props.0));
    page.max().unwrap_or(0) + props.max().unwrap_or(0)
}

/// The configuration of every route.
struct Routes {
    named: BTreeMap<String, RouteConfig>,
    others: RouteConfig,
}

impl Routes {
    fn resolve(file: &LiveTables, concurrency: usize) -> anyhow::Result<Self> {
        let shared = Route {
            settings: file.settings.clone(),
            ..Route::default()
        };
        let defaults = file.defaults.over(&shared);
        let others = resolve(&defaults, concurrency).context("[defaults]")?;
        let mut named = BTreeMap::new();
        for (route, table) in &file.routes {
            let place = || format!("[routes.{route:?}]");
            Pattern::parse(route).with_context(place)?;
            let config = resolve(&table.over(&defaults), concurrency).with_context(place)?;
            named.insert(route.clone(), config);
        }
        Ok(Self { named, others })
    }

    fn of(&self, route: &str) -> RouteConfig {
        self.named.get(route).unwrap_or(&self.others).clone()
    }

    /// Cuts memory limits down to `most`; tells whose were larger.
    fn cap(&mut self, most: u64) -> Vec<String> {
        let named = self.named.iter_mut();
        let named = named.map(|(route, config)| (format!("routes.{route:?}"), config));
        let all = named.chain([("defaults".to_owned(), &mut self.others)]);
        let larger = all.filter(|(_, config)| config.limits.memory > most);
        larger
            .map(|(table, config)| {
                config.limits.memory = most;
                table
            })
            .collect()
    }
}

fn resolve(table: &Route, concurrency: usize) -> anyhow::Result<RouteConfig> {
    let limits = limits(table)?;
    let outbound = table.outbound.as_deref().unwrap_or_default();
    let policy = Policy {
        revalidate: table
            .revalidate
            .map_or(Revalidate::Never, |lifetime| lifetime.0),
        max_stale: table
            .max_stale
            .map_or(Duration::from_secs(31_536_000), |span| span.0),
        render_on_change: table.render == Some(RenderWhen::WhenPropsChange),
        concurrency: table
            .concurrency
            .map_or(isr::share(concurrency), NonZeroUsize::get),
    };
    Ok(RouteConfig {
        policy,
        limits,
        outbound: Arc::new(outbound::Policy::parse(outbound)?),
        settings: Arc::new(table.settings.clone()),
        query: table.query.clone().unwrap_or_default(),
        paths_revalidate: table
            .paths_revalidate
            .map_or(PATHS_REVALIDATE, |lifetime| lifetime.0),
        may_revalidate: table.may_revalidate.unwrap_or(false),
    })
}

fn limits(table: &Route) -> anyhow::Result<Limits> {
    let default = Limits::default();
    let limits = Limits {
        cpu: table.cpu.map_or(default.cpu, |span| span.0),
        wall: table.wall.map_or(default.wall, |span| span.0),
        memory: table.memory.map_or(default.memory, |size| size.0),
        page: table.page.map_or(default.page, |size| size.0),
        props: table.props.map_or(default.props, |size| size.0),
        fetches: table.fetches.unwrap_or(default.fetches),
        fetches_in_flight: table
            .fetches_in_flight
            .map_or(default.fetches_in_flight, NonZeroU32::get),
        fetch_bytes: table.fetch_bytes.map_or(default.fetch_bytes, |size| size.0),
    };
    if limits.cpu.is_zero() || limits.wall.is_zero() {
        bail!("cpu and wall must be longer than 0: a page needs time to run");
    }
    // The pool reserves this much address space for each instance.
    ensure!(
        limits.memory <= 4 << 30,
        "memory = {}: a guest has at most 4 GiB",
        limits.memory
    );
    Ok(limits)
}
