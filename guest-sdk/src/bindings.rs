//! The generated border of the world `dynamic-page`, hidden behind [`page!`](crate::page).

wit_bindgen::generate!({
    path: "wit",
    world: "dynamic-page",
    pub_export_macro: true,
    default_bindings_module: "wisr_guest::bindings",
});
