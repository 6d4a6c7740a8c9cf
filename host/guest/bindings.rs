//! The bindings of `page.wit`, generated: the words that host and guest share.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated: page.wit is where these words are documented"
)]

wasmtime::component::bindgen!({
    path: "guest-sdk/wit",
    world: "dynamic-page",
    exports: { default: async },
});
