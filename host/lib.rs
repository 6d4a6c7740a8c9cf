//! wisr: WebAssembly Incremental Static Regeneration.
//!
//! One program that hosts page renderers compiled to WebAssembly. Each page says how long its
//! output stays fresh; wisr serves the cached output, regenerates it in a fresh sandbox when it
//! expires or when somebody calls the revalidate endpoint, and keeps the last good page whenever
//! a renderer errs, traps, hangs or eats memory.
//!
//! # The house, in reading order
//!
//! | floor | room | what lives there | what it must not know |
//! |---|---|---|---|
//! | 0 words | [`page`] | keys, entries, freshness, what is asked of a renderer | I/O, clocks, WebAssembly |
//! | 0 words | [`route`] | patterns, paths, the table that joins them | I/O, clocks |
//! | 0 words | [`telemetry`] | the clock, incidents, metrics, traces, the access log; knows `page`'s words | everything above |
//! | 0 words | [`cores`] | which cores threads run on | everything else |
//! | 1 machines | [`store`] | where entries live, in memory, on disk and shared with other hosts, and what was invalidated | who makes entries |
//! | 1 machines | [`guest`] | the sandbox: the only room that knows WebAssembly | the cache, the store |
//! | 2 policy | [`isr`] | single flight, priorities, back-off, last good | WebAssembly, HTTP |
//! | 2 policy | [`release`] | the folder of modules, loaded, watched, swapped, remembered | the cache, HTTP |
//! | 3 doors | [`http`] | one request: whose path it is, serve, condition, encoding, response | modules, sandboxes |
//! | 3 doors | [`admin`] | what operators ask: probes, metrics, the API and the dashboard | – |
//! | 4 assembly | [`config`], [`app`], [`cli`] | text to settings, wiring, commands | – |
//!
//! A file imports from floors below its own or from its own room; `tests/tidy.rs` holds it to
//! that. Only the top floor uses `anyhow`; the only `unsafe` is in `guest`, where compiled code is
//! mapped.
//!
//! # Invariants
//!
//! - Only a newer success or a removal replaces a last good page: whatever a guest does, an entry
//!   that was shown can be shown again.
//! - A page has at most one generation at a time, drafts aside, in a task of its own, in a fresh
//!   instance.
//! - Nothing of a request but its path and the allowed query parameters reaches a page or a key;
//!   an editor's page learns that it is a draft, and is kept nowhere. API routes see the whole
//!   request, and nothing that they answer is kept.
//! - A release is immutable. A request takes one and keeps it; a swap is one atomic store.
//! - Rules take the time as an argument; only [`telemetry::Clock`] reads it.
//!
//! # The life of a request
//!
//! `http::listen` accepts on one of its threads; `http::service` normalises the path and finds who
//! answers for it: a file of the public folder (`http::files`), an API route, an endpoint of wisr's
//! own, or, by the release's table, a page. [`isr::Isr::hit`] answers with a fresh entry without
//! waiting. A plain request for such a page takes the short way, by `http::lane`, which also waits
//! for what is on disk: hyper never sees it. Failing that, [`isr::Isr::serve`] shows the stale entry
//! and starts a generation behind the reader, or lets the reader wait for the first one. A
//! generation waits for its turn, runs in [`guest`] on threads of lower priority, is compressed once,
//! stored, and shown to all who wait. `http::respond` turns the entry into headers and a body that
//! are shared, not copied.
//!
//! Where hosts share what they have, a generation asks the others first: `isr::share` takes the
//! entry that one of them made, or a lease to make it for all. `store::shared` holds both, and passes
//! on what is invalidated. A shared tier that is away or slow is done without.
//!
//! A request below `/api` whose path has an API route takes another way: `http::api` reads its
//! body and hands it to the route's module on the same threads of lower priority, in a fresh
//! sandbox under the same limits. The cache never hears of it, unless the module has pages made
//! anew: that, the endpoint of wisr's own and the webhooks are one, `http::revalidate`.
//!
//! What a content system calls when something was published goes to `http::webhook`: it checks the
//! seal and turns the call into paths and tags by the rules of the site's file.
//!
//! Who holds a pass (`http::draft`) gets pages that are made for them alone, by [`isr::Isr::draft`],
//! which the store never hears of.
//!
//! # The life of a module
//!
//! [`release`] notices a file, and [`guest`] checks and compiles it, in a process of its own. A large
//! one first runs on code that was compiled quickly; `guest::upgrade` brings the optimised code in
//! while pages are made. With what has loaded, the next release is recorded and swapped in.

pub mod cores;
pub mod page;
pub mod route;
pub mod telemetry;

pub mod guest;
pub mod store;

pub mod isr;
pub mod release;

pub mod admin;
pub mod http;

pub mod app;
pub mod cli;
pub mod config;

#[cfg(test)]
mod fuzz;
