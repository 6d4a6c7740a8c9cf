//! The generated borders of the worlds `dynamic-page` and `api-route`, hidden behind
//! [`page!`](crate::page) and [`api!`](macro@crate::api).

wit_bindgen::generate!({
    path: "wit",
    world: "dynamic-page",
    pub_export_macro: true,
    default_bindings_module: "wisr_guest::bindings",
});

/// What only API routes import.
pub mod api {
    wit_bindgen::generate!({
        path: "wit",
        world: "api-route",
        with: { "wisr:page/host@0.1.0": crate::bindings::wisr::page::host },
    });
}
