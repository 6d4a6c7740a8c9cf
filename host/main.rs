//! The program `wisr`: parse, run, tell the exit code.

use std::process::ExitCode;

use clap::Parser;
use wisr::cli::Cli;

/// Hits allocate a header map each: a fast allocator is a good part of what they cost.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Cli::parse().run()
}
