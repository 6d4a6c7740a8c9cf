//! The bindings of `guest-sdk/wit`, generated: the words that host and guest share.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated: the `.wit` files are where these words are documented"
)]

wasmtime::component::bindgen!({
    inline: "
        package wisr:all;
        world all { include wisr:page/dynamic-page@0.1.0; include wisr:page/api-route@0.1.0; }
    ",
    path: "guest-sdk/wit",
    world: "wisr:all/all",
    imports: { "wisr:page/revalidate.revalidate": async },
    exports: { default: async },
});
