//! `wisr read-symbols`: what a server starts to read a module's debug information; not for people.

use std::process::ExitCode;

use clap::Args;

use crate::guest::{SymbolOrder, run_symbol_child};

/// Read the debug information on stdin, within limits; a server does this for itself.
#[derive(Debug, Args)]
pub(super) struct SymbolArgs {
    /// What to read, as JSON.
    #[arg(value_name = "ORDER")]
    order: SymbolOrder,
}

/// Runs `wisr read-symbols`.
pub(super) fn run(args: &SymbolArgs) -> ExitCode {
    run_symbol_child(&args.order)
}
