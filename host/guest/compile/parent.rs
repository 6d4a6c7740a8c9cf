//! `compile`: starts a child for a module, waits for it no longer than agreed, and makes sense of
//! its end.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use rustix::fs::MemfdFlags;
use rustix::process::Signal;
use tokio::process::Command;

use super::super::limits::MESSAGE_BYTES;
use super::super::module::LoadError;
use super::super::trap::brief;
use super::child::{CompileOrder, Verdict};
use super::{CODE_BYTES, CompileLimits, Compiler, Job, Overran};

/// The child's three streams: files without a name, which nobody else can open. So nothing is
/// waited for but the child's end, and its code is in nobody's hands but the parent's from then on.
struct Streams {
    module: File,
    code: File,
    words: File,
}

/// How much address space the allocator takes at once, in KiB. By default it takes a gibibyte,
/// which would count.
const ALLOCATOR: (&str, &str) = ("MIMALLOC_ARENA_RESERVE", "65536");

/// Compiles in a child of `program`. The child ends with this future, and with the thread that first
/// polls it, which is what the kernel takes for its parent: one that lives as long as its runtime.
pub(super) async fn compile(program: &Path, job: Job) -> Result<Vec<u8>, LoadError> {
    let unready = |error| LoadError::NoCompiler(format!("{}: {error}", program.display()));
    let Job {
        bytes,
        limits,
        fast,
        tier,
        threads,
    } = job;
    let order = CompileOrder {
        parent: std::process::id(),
        memory: limits.memory,
        // Zero seconds would be no limit at all.
        cpu: limits.cpu.as_secs().max(1),
        code: CODE_BYTES,
        fast,
        tier,
    };
    let order =
        serde_json::to_string(&order).map_err(|error| LoadError::NoCompiler(error.to_string()))?;
    let streams = Streams::new(&bytes).map_err(unready)?;
    drop(bytes);
    let mut child = Command::new(program)
        .arg(Compiler::COMMAND)
        .arg(order)
        .env_clear()
        .env("RAYON_NUM_THREADS", threads.to_string())
        .env(ALLOCATOR.0, ALLOCATOR.1)
        .current_dir("/")
        .stdin(dup(&streams.module).map_err(unready)?)
        .stdout(dup(&streams.code).map_err(unready)?)
        .stderr(dup(&streams.words).map_err(unready)?)
        .kill_on_drop(true)
        .spawn()
        .map_err(unready)?;
    match tokio::time::timeout(limits.wall, child.wait()).await {
        Ok(ended) => streams.read(ended.map_err(unready)?, &limits),
        Err(_) => {
            // If it cannot be killed, it has ended.
            let _ = child.kill().await;
            Err(LoadError::Overran(Overran::Wall(limits.wall)))
        }
    }
}

fn dup(file: &File) -> io::Result<Stdio> {
    file.try_clone().map(Stdio::from)
}

impl Streams {
    fn new(module: &[u8]) -> io::Result<Self> {
        let file = |name| {
            let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
            io::Result::Ok(File::from(file))
        };
        let mut streams = Self {
            module: file("module")?,
            code: file("code")?,
            words: file("words")?,
        };
        streams.module.write_all(module)?;
        streams.module.rewind()?;
        Ok(streams)
    }

    /// What the child made, if it ended well.
    fn read(mut self, ended: ExitStatus, limits: &CompileLimits) -> Result<Vec<u8>, LoadError> {
        let verdict = Verdict::ALL
            .into_iter()
            .find(|verdict| ended.code() == Some(*verdict as i32));
        if verdict == Some(Verdict::Compiled) {
            let mut code = Vec::new();
            self.code
                .rewind()
                .and_then(|()| self.code.read_to_end(&mut code))
                .map_err(|error| LoadError::Crashed(format!("its code cannot be read: {error}")))?;
            return Ok(code);
        }
        let words = self.last_words();
        Err(match (verdict, overran(ended, &words, limits)) {
            // These words are the module's own in part: no conclusions are drawn from them.
            (Some(Verdict::Malformed), _) => LoadError::Malformed(words),
            (Some(Verdict::NoComponentType), _) => LoadError::NoComponentType,
            (_, Some(overran)) => LoadError::Overran(overran),
            (Some(Verdict::Refused), None) => LoadError::Compile(words),
            (Some(Verdict::Unready), None) => LoadError::NoCompiler(words),
            _ if ended.signal() == Some(Signal::KILL.as_raw()) => LoadError::Killed,
            _ if words.is_empty() => LoadError::Crashed(ended.to_string()),
            _ => LoadError::Crashed(format!("{ended}: {words}")),
        })
    }

    /// The end of what it said, which is where a reason stands.
    fn last_words(&mut self) -> String {
        let mut words = Vec::new();
        let length = self.words.metadata().map_or(0, |meta| meta.len());
        let from = length.saturating_sub(MESSAGE_BYTES as u64);
        // Without its words, its exit code must do.
        let _ = self
            .words
            .seek(SeekFrom::Start(from))
            .and_then(|_| self.words.read_to_end(&mut words));
        brief(String::from_utf8_lossy(&words).trim())
    }
}

/// The limit that ended it, if one did.
fn overran(ended: ExitStatus, words: &str, limits: &CompileLimits) -> Option<Overran> {
    let killed_by = |signal: Signal| ended.signal() == Some(signal.as_raw());
    // Whoever is refused memory says so: Rust before it aborts, the system in its error.
    let starved = ["memory allocation of ", "os error 12"];
    if killed_by(Signal::XCPU) {
        Some(Overran::Cpu(limits.cpu))
    } else if killed_by(Signal::XFSZ) {
        Some(Overran::Code)
    } else if starved.iter().any(|sign| words.contains(sign)) {
        Some(Overran::Memory(limits.memory))
    } else {
        None
    }
}
