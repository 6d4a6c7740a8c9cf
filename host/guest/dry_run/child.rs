//! `run`: the life of a child that tries one module: its code on stdin, how it went on stdout.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::super::artifact::Compiled;
use super::super::child::Confinement;
use super::super::compile::Made;
use super::super::engine::Engine;
use super::super::runtime::Tier;
use super::Refusal;
use super::first::first_start;
use crate::page::{Cost, Digest};

/// What a child is told on its command line, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrialOrder {
    pub(super) confinement: Confinement,
    /// Which compiler made the code.
    pub(super) tier: Tier,
    /// Whether it was told to do so quickly.
    pub(super) fast: bool,
    /// The largest memory limit of any route, in bytes.
    pub(super) max_memory: u64,
    /// Whether the code comes from the folder of artifacts; else it is what a compiler left.
    pub(super) is_kept: bool,
    pub(super) module: Digest,
}

impl FromStr for TrialOrder {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

/// Tries the module, within its bounds.
pub fn run(order: &TrialOrder) -> ExitCode {
    match order.confinement.enter() {
        Ok(true) => {}
        Ok(false) => return ExitCode::FAILURE,
        Err(error) => return fail(&error.to_string()),
    }
    let tried = attempt(order).unwrap_or_else(|error| Err(Refusal::Unready(error.to_string())));
    match serde_json::to_vec(&tried).map(|json| io::stdout().write_all(&json)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(&error.to_string()),
        Err(error) => fail(&error.to_string()),
    }
}

fn attempt(order: &TrialOrder) -> io::Result<Result<Cost, Refusal>> {
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let made = match order.is_kept {
        true => Made::of_code_alone(input)?,
        false => Made::of_answer(input)?,
    };
    let engine = Engine::for_trial(order.tier, order.fast, order.max_memory);
    let engine = engine.map_err(io::Error::other)?;
    // On its main thread: what overflows a stack overflows that of a process.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let code = Compiled::Fresh(made);
    Ok(runtime.block_on(first_start(&engine, &code, engine.runtime(), order.module)))
}

fn fail(words: &str) -> ExitCode {
    // Whoever reads this waits for the exit code anyway.
    let _ = io::stderr().write_all(words.as_bytes());
    ExitCode::FAILURE
}
