//! `Symbolizer`: from the places of a backtrace to functions, files and lines, by the debug
//! information that a module carries.
//!
//! Debug information is a program by whoever made the module: it can be nested without end, name
//! gigabytes, or never come to one. Nothing of it is parsed here. It is put aside when the module is
//! compiled, and a child with little memory and time reads in it, once for each place. Where the
//! child fails, functions keep the names that the module's `name` section gives them, and the
//! incident says why there are no lines.

mod cache;
mod child;
mod sections;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use child::{SymbolOrder, run as run_symbol_child};
pub(super) use sections::collect;

use super::child::{Confinement, Ended, Errand};
use super::compile::Compiler;
use super::frames::{Place, Symbol, Symbols, frames};
use super::limits::FRAME_BYTES;
use super::trap::{clip, size, span};
use crate::page::{Digest, Failure};
use crate::telemetry::Memory;
use cache::Cache;

/// Where the debug information of a module is.
#[derive(Debug, Clone)]
pub(super) enum DebugInfo {
    /// It has none.
    None,
    /// In a file of its own.
    Kept(PathBuf),
    /// From here on in a file without a name.
    Held(Arc<File>, u64),
}

/// How long a failure waits for its lines. It is told without them, and the next one has them.
const WAIT: Duration = Duration::from_secs(3);

/// CPU time of one child, which is more than the largest debug information of a compiler's takes.
const CPU: Duration = Duration::from_secs(5);

/// Wall time of one child, on a machine that has more to do.
const WALL: Duration = Duration::from_secs(10);

/// Wall time of all children of one module: a module may fail in as many places as it has.
const BUDGET: Duration = Duration::from_secs(60);

/// Bytes of memory of one child, and no more than half of what is left.
pub(super) const MEMORY: u64 = 256 << 20;

/// With less than this a child does not even start.
const LEAST_MEMORY: u64 = 64 << 20;

/// Bytes of address space beside it: the program itself.
const PROGRAM: u64 = 768 << 20;

/// Children at once, of different modules.
pub(super) const CHILDREN: usize = 2;

/// Failures whose places wait to be read. Others are told without lines.
const QUEUE: usize = 16;

/// Inlined functions of one place.
const SYMBOLS_EACH: usize = 64;

/// Functions of all places of a backtrace.
const SYMBOLS: usize = 256;

/// Bytes of what a child answers: two texts of [`FRAME_BYTES`] for each function, escaped.
const ANSWER: u64 = 1 << 20;

/// How much lower than the server's a child's priority is: that of the threads that make pages.
const NICE: i32 = 10;

/// Why debug information was not read. The words follow "its debug information was not read: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unread {
    #[error("it is malformed ({0})")]
    Malformed(String),
    #[error("reading it takes more than {} of memory (fixed)", size(*.0))]
    Memory(u64),
    #[error("reading it takes more than {} of CPU time (fixed)", span(CPU))]
    Cpu,
    #[error("its parts lie within each other too deeply")]
    Depth,
    #[error("reading it ended the process that did ({0})")]
    Crashed(String),
    #[error("reading it took longer than {} (fixed)", span(WALL))]
    Late,
    #[error(
        "reading it for many failures took longer than {} (fixed)",
        span(BUDGET)
    )]
    Budget,
    #[error(
        "reading it takes longer than {}, which is how long a failure waits for it",
        span(WAIT)
    )]
    Slow,
    #[error("too many other failures wait for theirs")]
    Busy,
    #[error("{0}")]
    Machine(String),
}

impl Unread {
    /// Whether it would be the same another time.
    fn is_final(&self) -> bool {
        match self {
            Unread::Memory(most) => *most == MEMORY,
            Unread::Malformed(_)
            | Unread::Cpu
            | Unread::Depth
            | Unread::Crashed(_)
            | Unread::Budget => true,
            Unread::Late | Unread::Slow | Unread::Busy | Unread::Machine(_) => false,
        }
    }
}

/// Reads debug information, each place once.
pub(super) struct Symbolizer {
    compiler: Compiler,
    cache: Mutex<Cache>,
    turns: Semaphore,
    queue: Arc<Semaphore>,
}

impl Symbolizer {
    pub(super) fn new(compiler: Compiler) -> Self {
        Self {
            compiler,
            cache: Mutex::default(),
            turns: Semaphore::new(CHILDREN),
            queue: Arc::new(Semaphore::new(QUEUE)),
        }
    }

    /// Adds to a failure in `module` the frames of its backtrace, and why they have no lines if that
    /// is the module's fault or the machine's. Takes no longer than [`WAIT`].
    pub(super) async fn tell(
        self: &Arc<Self>,
        failure: &mut Failure,
        module: Digest,
        debug: &DebugInfo,
        places: &[Place],
    ) {
        let (known, unread) = self.symbols(module, debug, places).await;
        failure.frames = frames(places, &known);
        if let Some(unread) = unread {
            let told = format!("; its debug information was not read: {unread}");
            failure.message.push_str(&told);
        }
    }

    async fn symbols(
        self: &Arc<Self>,
        module: Digest,
        debug: &DebugInfo,
        places: &[Place],
    ) -> (Symbols, Option<Unread>) {
        let offsets: Vec<u64> = places.iter().filter_map(|place| place.offset).collect();
        let mut known = Symbols::new();
        if matches!(debug, DebugInfo::None) || offsets.is_empty() {
            return (known, None);
        }
        let missing = self.cache.lock().take(module, &offsets, &mut known);
        if missing.is_empty() {
            return (known, None);
        }
        if let Some(unread) = self.cache.lock().unread(module) {
            return (known, Some(unread));
        }
        let Ok(place) = Arc::clone(&self.queue).try_acquire_owned() else {
            return (known, Some(Unread::Busy));
        };
        // Goes on when nobody waits any more: the next failure has what it found.
        let reading = Arc::clone(self).read(module, debug.clone(), missing, place);
        let reading = tokio::spawn(reading);
        let unread = match tokio::time::timeout(WAIT, reading).await {
            Err(_) => Some(Unread::Slow),
            Ok(Err(lost)) => Some(Unread::Machine(lost.to_string())),
            Ok(Ok(unread)) => unread,
        };
        self.cache.lock().take(module, &offsets, &mut known);
        (known, unread)
    }

    /// Has a child read what is missing still, when it is the module's turn and there is a place.
    async fn read(
        self: Arc<Self>,
        module: Digest,
        debug: DebugInfo,
        offsets: Vec<u64>,
        _place: OwnedSemaphorePermit,
    ) -> Option<Unread> {
        let gate = self.cache.lock().gate(module);
        let _one = gate.lock().await;
        let _turn = self.turns.acquire().await;
        let missing = self
            .cache
            .lock()
            .take(module, &offsets, &mut Symbols::new());
        let unread = self.cache.lock().unread(module);
        if missing.is_empty() || unread.is_some() {
            return unread;
        }
        let began = Instant::now();
        let found = self.ask(&debug, &missing).await;
        let mut cache = self.cache.lock();
        let is_spent = cache.spend(module, began.elapsed()) > BUDGET;
        let ended = match found {
            Ok(found) => {
                let found = found.into_iter().map(Arc::from);
                for (offset, symbols) in missing.into_iter().zip(found) {
                    cache.keep(module, offset, symbols);
                }
                None
            }
            Err(unread) => Some(unread),
        };
        match &ended {
            Some(unread) if unread.is_final() => cache.give_up(module, unread.clone()),
            _ if is_spent => cache.give_up(module, Unread::Budget),
            _ => {}
        }
        ended
    }

    async fn ask(&self, debug: &DebugInfo, offsets: &[u64]) -> Result<Vec<Vec<Symbol>>, Unread> {
        let lost = |error: io::Error| Unread::Machine(format!("its file cannot be read ({error})"));
        let (file, base) = debug.open().map_err(lost)?;
        match &self.compiler {
            Compiler::Child(program) => ask_child(program, file, base, offsets.to_vec()).await,
            Compiler::InProcess => {
                let offsets = offsets.to_vec();
                let work = move || child::look_up(&file, base, &offsets);
                let done = tokio::task::spawn_blocking(work).await;
                let done = done.map_err(|lost| Unread::Crashed(lost.to_string()))?;
                done.map_err(|error| Unread::Malformed(error.to_string()))
            }
        }
    }
}

impl DebugInfo {
    fn open(&self) -> io::Result<(File, u64)> {
        match self {
            DebugInfo::None => Err(io::ErrorKind::NotFound.into()),
            DebugInfo::Kept(path) => Ok((File::open(path)?, 0)),
            DebugInfo::Held(file, base) => Ok((file.try_clone()?, *base)),
        }
    }
}

async fn ask_child(
    program: &Path,
    file: File,
    base: u64,
    offsets: Vec<u64>,
) -> Result<Vec<Vec<Symbol>>, Unread> {
    let count = offsets.len();
    let memory = Memory::now().map_or(MEMORY, |memory| MEMORY.min(memory.left / 2));
    let memory = memory.max(LEAST_MEMORY);
    let order = SymbolOrder {
        confinement: Confinement {
            parent: std::process::id(),
            nice: NICE,
            space: Some(memory + PROGRAM),
            data: Some(memory),
            cpu: CPU.as_secs(),
            files: ANSWER,
        },
        base,
        offsets,
    };
    let unready =
        |words: String| Unread::Machine(format!("no process could be started to read it: {words}"));
    let errand = Errand {
        program,
        command: Compiler::SYMBOLS,
        order: serde_json::to_string(&order).map_err(|error| unready(error.to_string()))?,
        input: Stdio::from(file),
        threads: 1,
        wall: WALL,
    };
    let ended = errand
        .run()
        .await
        .map_err(|error| unready(error.to_string()))?;
    if ended.code() != Some(0) {
        return Err(judge(&ended, memory));
    }
    let json = ended.read(ANSWER).unwrap_or_default();
    parse(&json, count).ok_or_else(|| Unread::Crashed("its answer is none".to_owned()))
}

/// A child may be in the hands of the module that it read: its answer is no more than text, in no
/// larger number than it was asked for.
fn parse(json: &[u8], count: usize) -> Option<Vec<Vec<Symbol>>> {
    let mut found: Vec<Vec<Symbol>> = serde_json::from_slice(json).ok()?;
    let total: usize = found.iter().map(Vec::len).sum();
    if found.len() != count || total > SYMBOLS {
        return None;
    }
    for symbol in found.iter_mut().flatten() {
        for text in [&mut symbol.name, &mut symbol.place].into_iter().flatten() {
            // A line's number follows the file's name.
            *text = clip(text, FRAME_BYTES + 16);
        }
    }
    Some(found)
}

fn judge(ended: &Ended, memory: u64) -> Unread {
    let Some(status) = ended.status else {
        return Unread::Late;
    };
    if ended.code() == Some(i32::from(child::MALFORMED)) {
        Unread::Malformed(ended.words.clone())
    } else if ended.is_by(Signal::XCPU) {
        Unread::Cpu
    } else if ended.is_starved() {
        Unread::Memory(memory)
    } else if ended.words.contains("overflowed its stack") {
        Unread::Depth
    } else if ended.is_by(Signal::KILL) {
        Unread::Machine("the process that read it was killed from outside".to_owned())
    } else {
        Unread::Crashed(status.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_text_in_no_larger_number_than_asked_for() {
        let one = Symbol {
            name: Some("f\u{1b}[2J".to_owned() + &"x".repeat(4 << 10)),
            place: None,
        };
        let answer = |many: usize, each: usize| {
            let symbols = vec![vec![one.clone(); each]; many];
            serde_json::to_vec(&symbols).unwrap()
        };
        let read = parse(&answer(1, 2), 1).unwrap();
        let name = read[0][1].name.as_ref().unwrap();
        assert!(
            name.len() < 2 * FRAME_BYTES && !name.contains('\u{1b}'),
            "{name}"
        );
        assert_eq!(parse(&answer(2, 1), 1), None);
        assert_eq!(parse(&answer(1, SYMBOLS + 1), 1), None);
        assert_eq!(parse(b"[[{\"name\":", 1), None);
    }
}
