//! Several hosts, one cache: real servers, a real Redis, a bad network.
//!
//! `WISR_FAULTS=long cargo test --test main shared` lets every fault last as long as it may in
//! practice: half an hour in all. `WISR_TEST_REDIS=valkey-server` has another server in the place of
//! Redis: a program in the search path, or its path.

mod cluster;
mod first;
mod history;
mod hosts;
mod invalidations;
mod leases;
mod operators;
mod pages;
mod proxy;
mod redis;
mod trouble;

/// How long, or how many: `short`, unless the environment asks for the whole.
fn extent<T>(short: T, long: T) -> T {
    match std::env::var("WISR_FAULTS") {
        Ok(it) if it == "long" => long,
        Ok(it) => panic!("WISR_FAULTS={it}: there is `long`, or nothing"),
        Err(_) => short,
    }
}
