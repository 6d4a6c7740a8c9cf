//! `wisr try-artifact`: what a server starts to try a module that is new to it; not for people.

use std::process::ExitCode;

use clap::Args;

use crate::guest::{TrialOrder, run_trial_child};

/// Start the module whose code is on stdin once, within limits; a server does this for itself.
#[derive(Debug, Args)]
pub(super) struct TrialArgs {
    /// What to try, as JSON.
    #[arg(value_name = "ORDER")]
    order: TrialOrder,
}

/// Runs `wisr try-artifact`.
pub(super) fn run(args: &TrialArgs) -> ExitCode {
    run_trial_child(&args.order)
}
