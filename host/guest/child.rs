//! `Child`: a process of this program's own that does one thing with a stranger's bytes. Whatever
//! they do to it ends nothing else.
//!
//! It is `wisr` itself, started anew by a hidden command. Before it reads a byte it gives up what it
//! does not need: priority, environment, memory, time, open files; and it offers itself to a kernel
//! that is short of memory before all others.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::limits::MESSAGE_BYTES;
use super::trap::brief;

/// What a child keeps for itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Confinement {
    /// The process that waits for it.
    pub(super) parent: u32,
    /// How much lower than the server's its priority is.
    pub(super) nice: i32,
    /// Bytes of address space; without it, as much as there is.
    pub(super) space: Option<u64>,
    /// Bytes of memory of its own that it may write to; without it, as much as there is.
    pub(super) data: Option<u64>,
    /// Seconds of CPU time.
    pub(super) cpu: u64,
    /// Bytes of the largest file that it writes: its answer, or what it keeps in memory files.
    pub(super) files: u64,
}

/// Open files: its three streams, and what its threads look up about the machine.
const OPEN_FILES: u64 = 32;

/// The kernel ends it first of all, and not the server that started it.
const FIRST_TO_GO: &str = "1000";

/// How much address space the allocator takes at once, in KiB. By default it takes a gibibyte,
/// which would count.
const ALLOCATOR: (&str, &str) = ("MIMALLOC_ARENA_RESERVE", "65536");

impl Confinement {
    /// Gives up what this process does not need; whether its parent still waits.
    pub(super) fn enter(&self) -> io::Result<bool> {
        // Whoever has it lower may always raise it. Where `/proc` is not mounted or may not be
        // written to, the kernel goes by size alone, and this process is the smaller one.
        let _ = fs::write("/proc/self/oom_score_adj", FIRST_TO_GO);
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have gone before it was to be followed.
        let parent = i32::try_from(self.parent).ok().and_then(Pid::from_raw);
        if rustix::process::getppid() != parent {
            return Ok(false);
        }
        let bound = |resource, soft: u64, hard: u64| {
            let (current, maximum) = (Some(soft), Some(hard));
            rustix::process::setrlimit(resource, Rlimit { current, maximum })
        };
        bound(Resource::Core, 0, 0)?;
        bound(Resource::Nofile, OPEN_FILES, OPEN_FILES)?;
        bound(Resource::Fsize, self.files, self.files)?;
        for (resource, bytes) in [(Resource::As, self.space), (Resource::Data, self.data)] {
            if let Some(bytes) = bytes {
                bound(resource, bytes, bytes)?;
            }
        }
        // The first signal says which limit it was; the second would only say that it was killed.
        bound(Resource::Cpu, self.cpu, self.cpu.saturating_add(1))?;
        // Threads take it from the one that starts them. Without it, the child merely competes.
        let _ = rustix::process::setpriority_process(None, self.nice);
        Ok(true)
    }
}

/// What a child is started with.
pub(super) struct Errand<'a> {
    pub(super) program: &'a Path,
    /// The hidden command.
    pub(super) command: &'static str,
    /// What to do, as JSON. It never outlives the program that wrote it, so it has no version.
    pub(super) order: String,
    /// What is to be read.
    pub(super) input: Stdio,
    /// Threads of those who share work.
    pub(super) threads: usize,
    pub(super) wall: Duration,
}

/// How a child ended.
pub(super) struct Ended {
    /// None when its time was over.
    pub(super) status: Option<ExitStatus>,
    /// What it answered, in nobody's hands but the parent's by now.
    pub(super) answer: File,
    /// The end of what it said, which is where a reason stands.
    pub(super) words: String,
}

impl Errand<'_> {
    /// Runs the child to its end. Its streams are files without a name, which nobody else can open,
    /// so that nothing is waited for but its end. It ends with this future, and with the thread that
    /// first polls it, which is what the kernel takes for its parent: one that lives as long as its
    /// runtime.
    ///
    /// # Errors
    /// When it could not be started.
    pub(super) async fn run(self) -> io::Result<Ended> {
        let (answer, mut words) = (nameless("answer")?, nameless("words")?);
        let mut child = Command::new(self.program)
            .arg(self.command)
            .arg(self.order)
            .env_clear()
            .env("RAYON_NUM_THREADS", self.threads.to_string())
            .env(ALLOCATOR.0, ALLOCATOR.1)
            .current_dir("/")
            .stdin(self.input)
            .stdout(dup(&answer)?)
            .stderr(dup(&words)?)
            .kill_on_drop(true)
            .spawn()?;
        let status = match tokio::time::timeout(self.wall, child.wait()).await {
            Ok(ended) => Some(ended?),
            Err(_) => {
                // If it cannot be killed, it has ended.
                let _ = child.kill().await;
                None
            }
        };
        Ok(Ended {
            status,
            answer,
            words: last_words(&mut words),
        })
    }
}

impl Ended {
    /// Whether this signal ended it.
    pub(super) fn is_by(&self, signal: Signal) -> bool {
        let by = self.status.and_then(|status| status.signal());
        by == Some(signal.as_raw())
    }

    /// Whether it was refused memory: Rust says so before it aborts, the system in its error.
    pub(super) fn is_starved(&self) -> bool {
        let starved = ["memory allocation of ", "os error 12"];
        starved.iter().any(|sign| self.words.contains(sign))
    }

    /// The first bytes of its answer, up to `most`.
    pub(super) fn read(&self, most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut answer = &self.answer;
        answer.rewind()?;
        answer.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Its exit code, when it came to an end of its own.
    pub(super) fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.code())
    }
}

/// A file in memory without a name.
pub(super) fn nameless(label: &str) -> io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create(
        label,
        MemfdFlags::CLOEXEC,
    )?))
}

/// The same file as a stream of a child's.
pub(super) fn dup(file: &File) -> io::Result<Stdio> {
    file.try_clone().map(Stdio::from)
}

fn last_words(file: &mut File) -> String {
    let mut words = Vec::new();
    let length = file.metadata().map_or(0, |meta| meta.len());
    let from = length.saturating_sub(MESSAGE_BYTES as u64);
    // Without its words, its exit code must do.
    let _ = file
        .seek(SeekFrom::Start(from))
        .and_then(|_| file.read_to_end(&mut words));
    brief(String::from_utf8_lossy(&words).trim())
}
