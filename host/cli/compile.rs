//! `wisr compile-artifact`: what a server starts to compile one module; not for people.

use std::process::ExitCode;

use clap::Args;

use crate::guest::{CompileOrder, run_child};

/// Compile the module on stdin to stdout, within limits; a server does this for itself.
#[derive(Debug, Args)]
pub(super) struct CompileArgs {
    /// What to do, as JSON.
    #[arg(value_name = "ORDER")]
    order: CompileOrder,
}

/// Runs `wisr compile-artifact`.
pub(super) fn run(args: &CompileArgs) -> ExitCode {
    run_child(&args.order)
}
