//! `run`: the life of a child that compiles one module: stdin to stdout, and what is wrong to stderr.

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::str::FromStr;

use rustix::process::{Pid, Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};

use super::super::engine;
use super::super::limits::MODULE_BYTES;
use super::super::module::LoadError;
use super::super::runtime::Tier;
use super::steps;

/// What a child is told on its command line, as JSON. It never outlives the program that wrote it,
/// so it has no version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CompileOrder {
    /// The process that waits for it.
    pub(super) parent: u32,
    /// Bytes of address space.
    pub(super) memory: u64,
    /// Seconds of CPU time.
    pub(super) cpu: u64,
    /// Bytes of code.
    pub(super) code: u64,
    /// Compile quickly to slower code.
    pub(super) fast: bool,
    /// By which compiler.
    pub(super) tier: Tier,
}

impl FromStr for CompileOrder {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

/// What a child says in its exit code, when it comes to an end of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Compiled = 0,
    /// [`LoadError::Malformed`]
    Malformed = 10,
    /// [`LoadError::NoComponentType`]
    NoComponentType = 11,
    /// [`LoadError::Compile`]
    Refused = 12,
    /// It could not begin.
    Unready = 13,
}

impl Verdict {
    pub(super) const ALL: [Verdict; 5] = [
        Verdict::Compiled,
        Verdict::Malformed,
        Verdict::NoComponentType,
        Verdict::Refused,
        Verdict::Unready,
    ];
}

/// How much lower than the server's its priority is: the lowest there is, but where somebody waits
/// for a new page, who goes before whoever only gets faster code.
fn nice(tier: Tier) -> i32 {
    match tier {
        Tier::Baseline => 15,
        Tier::Optimized => 19,
    }
}

/// Open files: its three streams, and what its threads look up about the machine.
const OPEN_FILES: u64 = 32;

/// Compiles the module on stdin to stdout, as ordered.
pub fn run(order: &CompileOrder) -> ExitCode {
    let (verdict, words) = match confine(order) {
        Err(error) => (Verdict::Unready, error.to_string()),
        Ok(false) => (Verdict::Unready, "its parent is gone".to_owned()),
        Ok(true) => judge(compile(order)),
    };
    // Whoever reads this waits for the exit code anyway.
    let _ = io::stderr().write_all(words.as_bytes());
    ExitCode::from(verdict as u8)
}

/// Gives up what it does not need; whether its parent still waits.
fn confine(order: &CompileOrder) -> io::Result<bool> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have gone before it was to be followed.
    let parent = i32::try_from(order.parent).ok().and_then(Pid::from_raw);
    if rustix::process::getppid() != parent {
        return Ok(false);
    }
    let bound = |resource, soft: u64, hard: u64| {
        let (current, maximum) = (Some(soft), Some(hard));
        rustix::process::setrlimit(resource, Rlimit { current, maximum })
    };
    bound(Resource::Core, 0, 0)?;
    bound(Resource::Nofile, OPEN_FILES, OPEN_FILES)?;
    bound(Resource::Fsize, order.code, order.code)?;
    bound(Resource::As, order.memory, order.memory)?;
    // The first signal says which limit it was; the second would only say that it was killed.
    bound(Resource::Cpu, order.cpu, order.cpu.saturating_add(1))?;
    // Threads take it from the one that starts them. Without it, compiling merely competes.
    let _ = rustix::process::setpriority_process(None, nice(order.tier));
    Ok(true)
}

fn compile(order: &CompileOrder) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    io::stdin()
        .take(MODULE_BYTES as u64)
        .read_to_end(&mut bytes)
        .map_err(|error| LoadError::Compile(error.to_string()))?;
    let runtime = engine::for_compiling(order.tier, order.fast)
        .map_err(|error| LoadError::Compile(format!("{error:#}")))?;
    steps::compile(&runtime, &bytes)
}

fn judge(compiled: Result<Vec<u8>, LoadError>) -> (Verdict, String) {
    match compiled {
        Ok(code) => match io::stdout().write_all(&code) {
            Ok(()) => (Verdict::Compiled, String::new()),
            Err(error) => (Verdict::Unready, error.to_string()),
        },
        Err(LoadError::Malformed(words)) => (Verdict::Malformed, words),
        Err(LoadError::NoComponentType) => (Verdict::NoComponentType, String::new()),
        Err(LoadError::Compile(words)) => (Verdict::Refused, words),
        Err(other) => (Verdict::Refused, other.to_string()),
    }
}
