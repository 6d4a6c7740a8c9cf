//! The program `wisr`: parse, run, tell the exit code.

use std::process::ExitCode;

use clap::Parser;
use wisr::cli::Cli;

/// Hits allocate a header map each: a fast allocator is a good part of what they cost.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator would round what it holds up to pages of 2 MiB: a server at rest would keep
    // three times the memory, for nothing that shows in the time of a hit. Where the kernel knows
    // no huge pages, there are none.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    Cli::parse().run()
}
