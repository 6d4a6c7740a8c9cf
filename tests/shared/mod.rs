//! Several hosts, one cache: real servers, a real Redis, a bad network.

mod cluster;
mod history;
mod hosts;
mod invalidations;
mod leases;
mod pages;
mod proxy;
mod redis;
mod trouble;
