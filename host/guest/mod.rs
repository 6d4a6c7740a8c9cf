//! `Guest`: page modules in a sandbox. The only room that knows what WebAssembly is.
//!
//! | where | what |
//! |---|---|
//! | [`Engine`] | compiles modules and owns what all sandboxes share: one for the process |
//! | [`Module`] | one page module, checked, compiled, ready to be instantiated |
//! | [`Guest`] | a module with its limits and grants: implements [`crate::page::Render`] |
//! | [`Limits`] | what one generation may use |
//! | [`outbound`] | which hosts it may reach, and how |
//!
//! The life of a generation: a place, a fresh store and instance (`run`, `sandbox`), `static-props`
//! and `render` in it (`render`), values checked on their way out (`convert`), and, when it ends
//! badly, an account that the page's author can act on (`trap`). Nothing survives it.

mod artifact;
mod bindings;
mod convert;
mod engine;
mod limits;
mod meter;
mod module;
pub mod outbound;
mod render;
mod run;
mod sandbox;
mod sink;
mod trap;

pub use engine::{Engine, EngineConfig, EngineError};
pub use limits::Limits;
pub use module::{LoadError, Module, ModuleKind};
pub use render::Guest;

#[cfg(test)]
mod tests;
