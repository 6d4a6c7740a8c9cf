//! `Guest`: modules in a sandbox. The only room that knows what WebAssembly is.
//!
//! | where | what |
//! |---|---|
//! | [`Engine`] | loads modules and owns what all sandboxes share: one for the process |
//! | [`Compiler`] | compiles them, in processes of their own |
//! | [`Module`] | one module, checked, compiled, ready to be instantiated, and its [`Role`] |
//! | [`Guest`] | a page's module with its [`Grants`]: implements [`crate::page::Render`] |
//! | [`ApiGuest`] | an API route's module with its [`Grants`]: answers requests |
//! | [`Limits`] | what one generation, or one request to an API route, may use |
//! | [`outbound`] | which hosts it may reach, and how |
//!
//! The life of a generation: a place, a fresh store and instance (`run`, `sandbox`), `static-props`
//! and `render` in it (`render`), all that it and the host hold for it under one limit (`held`),
//! values checked on their way out (`convert`), and, when it ends badly, an account that the page's
//! author can act on (`trap`, `frames`). Nothing survives it. Where in the author's files it ended,
//! a child reads (`symbols`).
//!
//! What bounds everything that is a guest's, and where that is tested: `bounds`.

mod api;
mod artifact;
mod bindings;
mod bounds;
mod child;
mod code;
mod compile;
mod convert;
mod dry_run;
mod engine;
mod frames;
mod grants;
mod held;
mod killed;
mod limits;
mod load;
mod meter;
mod module;
mod needs;
pub mod outbound;
mod render;
mod repeats;
mod revalidate;
mod run;
mod runtime;
mod sandbox;
mod sink;
mod symbols;
mod trap;
mod upgrade;

pub use api::{ApiGuest, Unanswered};
pub use compile::{CompileLimits, CompileOrder, Compiler, Overran, run_child};
pub use dry_run::{TrialOrder, run_trial_child};
pub use engine::{Engine, EngineConfig, EngineError};
pub use grants::Grants;
pub use limits::Limits;
pub use module::{ApiExports, LoadError, Module, ModuleKind, PageExports, Role};
pub use needs::Needs;
pub use render::Guest;
pub use revalidate::Revalidate;
pub use runtime::Tier;
pub use symbols::{SymbolOrder, run_symbol_child};

#[cfg(test)]
mod tests;
