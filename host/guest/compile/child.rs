//! `run`: the life of a child that compiles one module: stdin to stdout, and what is wrong to stderr.

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::super::child::Confinement;
use super::super::engine;
use super::super::limits::MODULE_BYTES;
use super::super::module::LoadError;
use super::super::runtime::Tier;
use super::made::Parts;
use super::steps;

/// What a child is told on its command line, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CompileOrder {
    pub(super) confinement: Confinement,
    /// Compile quickly to slower code.
    pub(super) fast: bool,
    /// By which compiler.
    pub(super) tier: Tier,
    /// Bytes of memory that a module may have from the start.
    pub(super) max_memory: u64,
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
    /// [`LoadError::NeedsTooMuch`]
    NeedsTooMuch = 14,
}

impl Verdict {
    pub(super) const ALL: [Verdict; 6] = [
        Verdict::Compiled,
        Verdict::Malformed,
        Verdict::NoComponentType,
        Verdict::Refused,
        Verdict::Unready,
        Verdict::NeedsTooMuch,
    ];
}

/// Compiles the module on stdin to stdout, as ordered.
pub fn run(order: &CompileOrder) -> ExitCode {
    let (verdict, words) = match order.confinement.enter() {
        Err(error) => (Verdict::Unready, error.to_string()),
        Ok(false) => (Verdict::Unready, "its parent is gone".to_owned()),
        Ok(true) => judge(compile(order)),
    };
    // Whoever reads this waits for the exit code anyway.
    let _ = io::stderr().write_all(words.as_bytes());
    ExitCode::from(verdict as u8)
}

fn compile(order: &CompileOrder) -> Result<Parts, LoadError> {
    let mut bytes = Vec::new();
    io::stdin()
        .take(MODULE_BYTES as u64)
        .read_to_end(&mut bytes)
        .map_err(|error| LoadError::Compile(error.to_string()))?;
    let runtime = engine::for_compiling(order.tier, order.fast)
        .map_err(|error| LoadError::Compile(format!("{error:#}")))?;
    steps::compile(&runtime, &bytes, order.max_memory)
}

fn judge(compiled: Result<Parts, LoadError>) -> (Verdict, String) {
    match compiled {
        Ok(parts) => match parts.write(&mut io::stdout()) {
            Ok(()) => (Verdict::Compiled, String::new()),
            Err(error) => (Verdict::Unready, error.to_string()),
        },
        Err(LoadError::Malformed(words)) => (Verdict::Malformed, words),
        Err(LoadError::NoComponentType) => (Verdict::NoComponentType, String::new()),
        Err(LoadError::NeedsTooMuch(words)) => (Verdict::NeedsTooMuch, words),
        Err(LoadError::Compile(words)) => (Verdict::Refused, words),
        Err(other) => (Verdict::Refused, other.to_string()),
    }
}
