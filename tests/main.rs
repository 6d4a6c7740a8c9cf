//! The promises of wisr, tested from outside: the real binary, real modules, HTTP and files.
//!
//! Each file of promises is named after a section of the design; the others are the bench they
//! stand on. A test lays out a site in a temporary folder, scripts the origin that its pages read
//! from, starts the server and watches what readers get.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on panics, and shows what the server said"
)]

// The bench: a site, the origin behind it, the client before it, the modules in it.
mod browser;
mod client;
mod modules;
mod origin;
mod site;
mod tools;

// The promises.
mod after_restart;
mod api;
mod check;
mod commands;
mod configuration;
mod confined;
mod crash;
mod dashboard;
mod debug_info;
mod deployment;
mod doors;
mod draft;
mod faults;
mod files;
mod footprint;
mod frames;
mod framing;
mod hostile;
mod http2;
mod languages;
mod logs;
mod metrics;
mod model;
mod new;
mod odd;
mod on_demand;
mod openapi;
mod overlay;
mod overload;
mod packages;
mod poisoning;
mod prerender;
mod proxies;
mod publication;
mod quick_swap;
mod rebinding;
mod regeneration;
mod releases;
mod reloading;
mod room;
mod routing;
mod sandbox;
mod serving;
mod shared;
mod slow;
mod stopping;
mod store_files;
mod swap;
mod tags;
mod tidy;
mod tracing;
mod webhooks;
