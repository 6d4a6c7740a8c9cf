//! `Compiler`: where modules are compiled, and what a compilation may use.
//!
//! A compiler is a million lines that take apart whatever somebody put into the folder. Limits on
//! running guests do not hold it: it can overflow its stack, take all memory, or not end. So a
//! server lets a child process do it: `wisr` itself, started anew with a module on stdin, which
//! gives up its priority, its environment and most of its resources before it reads the first byte.
//! Whatever becomes of the child, the server is told, and refuses that module.
//!
//! What this contains is the compiler's failures. A child that a module took over could answer with
//! code of its choosing, which the server would run, as it would if it compiled by itself.

mod child;
mod made;
mod parent;
mod room;
mod steps;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

pub use child::{CompileOrder, run as run_child};
pub(super) use made::Made;
pub(super) use room::{COMPILATIONS, Room, Turn};

use super::limits::MODULE_BYTES;
use super::module::LoadError;
use super::runtime::Tier;
use super::trap::{size, span};

/// Where modules are compiled.
#[derive(Debug, Clone)]
pub enum Compiler {
    /// In a child process each: this program, whose hidden command [`Compiler::COMMAND`] leads to
    /// [`run_child`].
    Child(PathBuf),
    /// In this process: for tests and measurements, whose modules are their own.
    InProcess,
}

/// What one compilation may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileLimits {
    /// Bytes of address space.
    pub memory: u64,
    /// CPU time, summed over its threads; the kernel counts whole seconds.
    pub cpu: Duration,
    /// Wall time.
    pub wall: Duration,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self {
            // The largest Python guest seen takes less than half of it.
            memory: 2 << 30,
            // That guest takes some 25 s.
            cpu: Duration::from_secs(120),
            // One of the two turns to compile is taken for that long.
            wall: Duration::from_secs(120),
        }
    }
}

/// Bytes of compiled code: guests compile to two or three times their size, in development to more.
const CODE_BYTES: u64 = 8 * MODULE_BYTES as u64;

/// The limit that a compilation ran into. Its words follow "compiling it".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Overran {
    /// Of [`CompileLimits::memory`].
    #[error("needed more than {} of memory (limit `compile.memory`)", size(*.0))]
    Memory(u64),
    /// Of what the machine, or the control group around the server, has left.
    #[error("needed more than the {} of memory that the machine or its control group had left", size(*.0))]
    Left(u64),
    /// Of [`CompileLimits::cpu`].
    #[error("took more than {} of CPU time (limit `compile.cpu`)", span(*.0))]
    Cpu(Duration),
    /// Of [`CompileLimits::wall`].
    #[error("took longer than {} (limit `compile.wall`)", span(*.0))]
    Wall(Duration),
    /// Of what code may take.
    #[error("made more than {} of code (fixed)", size(CODE_BYTES))]
    Code,
}

/// What is to be done, and how.
pub(super) struct Job {
    /// The module as it was found: a component, or a core module to be made one.
    pub(super) bytes: Bytes,
    pub(super) limits: CompileLimits,
    /// Bytes of memory that are left for it.
    pub(super) left: u64,
    /// Compile quickly to slower code.
    pub(super) fast: bool,
    pub(super) tier: Tier,
    /// Threads of the child.
    pub(super) threads: usize,
    /// Bytes of memory that it may have from the start.
    pub(super) max_memory: u64,
}

impl Compiler {
    /// The command by which a child knows that it is one. It takes an [`CompileOrder`].
    pub const COMMAND: &'static str = "compile-artifact";

    /// The command of a child that tries a module. It takes a [`super::TrialOrder`].
    pub const TRIAL: &'static str = "try-artifact";

    /// The command of a child that reads debug information. It takes a [`super::SymbolOrder`].
    pub const SYMBOLS: &'static str = "read-symbols";

    /// A child of the program that is running, whatever stands in its file by now.
    pub fn of_this_program() -> Self {
        Compiler::Child(PathBuf::from("/proc/self/exe"))
    }

    /// Checks a module, makes it a component and compiles it.
    ///
    /// # Errors
    /// What is wrong with it, or what became of the compiler.
    pub(super) async fn compile(
        &self,
        runtime: &wasmtime::Engine,
        job: Job,
    ) -> Result<Made, LoadError> {
        match self {
            Compiler::Child(program) => parent::compile(program, job).await,
            Compiler::InProcess => {
                let runtime = runtime.clone();
                let work = move || {
                    let parts = steps::compile(&runtime, &job.bytes, job.max_memory)?;
                    Made::of_parts(&parts).map_err(|error| LoadError::Crashed(error.to_string()))
                };
                let done = tokio::task::spawn_blocking(work).await;
                done.unwrap_or_else(|lost| Err(LoadError::Crashed(lost.to_string())))
            }
        }
    }
}
