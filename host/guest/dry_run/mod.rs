//! `dry_run`: a new module's first start, before any reader depends on it, and where it can end
//! nothing: in a child.
//!
//! Whatever a stranger's module does to the machinery that runs it, it does there first. A module
//! that passed is remembered with its code, so that a restart starts nothing.

mod child;
mod first;

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

pub use child::{TrialOrder, run as run_trial_child};

use super::artifact::Compiled;
use super::child::{Confinement, Ended, Errand};
use super::compile::Compiler;
use super::engine::{Engine, Purpose};
use super::frames::Place;
use super::limits::{DRY_RUN, MODULE_BYTES};
use super::module::LoadError;
use super::runtime::Runtime;
use super::trap::span;
use crate::page::{Cost, Digest, Failure};
use first::first_start;

/// Why a module did not pass. What a child says of it, as JSON that does not outlive the program.
#[derive(Debug, Serialize, Deserialize)]
enum Refusal {
    NoRole(String),
    WrongTypes(String),
    MissingImport(String),
    NeedsTooMuch(String),
    StartUp(Box<Failure>, Vec<Place>),
    /// It could not be tried.
    Unready(String),
}

/// What the host may take for it in a child beside the memory of the module, in bytes: its code is
/// read and made runnable there.
const HOST_BYTES: u64 = 1 << 30;

/// What a child takes beside the guest's time, on a machine that has more to do.
const SPARE: Duration = Duration::from_secs(30);

/// Bytes of the file in memory that holds how a memory begins: wasmtime makes one whose data fill half
/// of it at least, and data are part of the module.
const IMAGE_BYTES: u64 = 4 * MODULE_BYTES as u64;

/// Bytes of what a child answers: a failure is bounded as an incident is.
const ANSWER: u64 = 1 << 20;

/// How much lower than the server's a child's priority is: that of the threads that make pages.
const NICE: i32 = 10;

impl Engine {
    /// Starts a module once, with nothing granted, to see that it starts and what its exports are:
    /// wasmtime compares types only then. Returns what that took.
    ///
    /// # Errors
    /// What is wrong with the module, or what became of the process that tried it.
    pub(super) async fn dry_run(
        &self,
        compiled: &Compiled,
        runtime: &Arc<Runtime>,
        module: Digest,
    ) -> Result<Cost, LoadError> {
        let tried = match self.compiler() {
            Compiler::InProcess => first_start(self, compiled, runtime, module).await,
            Compiler::Child(program) => {
                let _place = self.place(Purpose::Trial).await;
                let order = TrialOrder {
                    confinement: confinement(runtime, self.max_memory()),
                    tier: runtime.tier,
                    fast: self.is_fast(),
                    max_memory: self.max_memory(),
                    is_kept: matches!(compiled, Compiled::Kept(_)),
                    module,
                };
                try_in_child(program, &order, compiled).await?
            }
        };
        match tried {
            Ok(cost) => Ok(cost),
            Err(Refusal::NoRole(words)) => Err(LoadError::NoRole(words)),
            Err(Refusal::WrongTypes(words)) => Err(LoadError::WrongTypes(words)),
            Err(Refusal::MissingImport(words)) => Err(LoadError::MissingImport(words)),
            Err(Refusal::NeedsTooMuch(words)) => Err(LoadError::NeedsTooMuch(words)),
            Err(Refusal::Unready(words)) => Err(LoadError::NoCompiler(words)),
            Err(Refusal::StartUp(mut failure, places)) => {
                let symbolizer = self.symbolizer();
                symbolizer
                    .tell(&mut failure, module, &compiled.debug(), &places)
                    .await;
                Err(LoadError::StartUp(failure))
            }
        }
    }
}

fn confinement(runtime: &Runtime, max_memory: u64) -> Confinement {
    let limits = DRY_RUN.on(runtime.tier);
    Confinement {
        parent: std::process::id(),
        nice: NICE,
        // Memories are reserved at their largest, and given what they use.
        space: None,
        data: Some(max_memory.saturating_add(HOST_BYTES)),
        cpu: (limits.cpu + SPARE).as_secs(),
        files: IMAGE_BYTES,
    }
}

async fn try_in_child(
    program: &Path,
    order: &TrialOrder,
    compiled: &Compiled,
) -> Result<Result<Cost, Refusal>, LoadError> {
    let unready = |words: String| LoadError::NoCompiler(format!("{}: {words}", program.display()));
    let wall = DRY_RUN.on(order.tier).wall + SPARE;
    let errand = Errand {
        program,
        command: Compiler::TRIAL,
        order: serde_json::to_string(order).map_err(|error| unready(error.to_string()))?,
        input: input(compiled).map_err(|error| unready(error.to_string()))?,
        threads: 1,
        wall,
    };
    let ended = errand.run().await;
    let ended = ended.map_err(|error| unready(error.to_string()))?;
    let answer = ended.read(ANSWER).unwrap_or_default();
    match serde_json::from_slice(&answer) {
        Ok(tried) if ended.code() == Some(0) => Ok(tried),
        _ => Err(died(&ended, wall)),
    }
}

fn input(compiled: &Compiled) -> io::Result<Stdio> {
    Ok(match compiled {
        Compiled::Kept(path) => Stdio::from(std::fs::File::open(path)?),
        Compiled::Fresh(made) => Stdio::from(made.file()?),
    })
}

fn died(ended: &Ended, wall: Duration) -> LoadError {
    let Some(status) = ended.status else {
        return LoadError::Died(format!("it did not end within {}", span(wall)));
    };
    if ended.is_by(Signal::KILL) {
        return LoadError::KilledInTrial;
    }
    LoadError::Died(match &*ended.words {
        "" => status.to_string(),
        words => format!("{status}: {words}"),
    })
}
