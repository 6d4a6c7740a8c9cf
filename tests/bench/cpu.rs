//! `Cores`: which of them serve and which of them ask, and [`spent`]: the CPU time that a process
//! and all below it have used, which noisy neighbours distort far less than time on the wall.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// `/proc/PID/stat` counts in `USER_HZ`, which is 100 on every architecture that Linux runs on.
const TICK: Duration = Duration::from_millis(10);

/// The division of the machine.
pub(crate) struct Cores {
    /// Where servers run, one at a time.
    pub(crate) servers: Vec<usize>,
    /// Where the load is made.
    pub(crate) load: Vec<usize>,
}

impl Cores {
    /// Two cores for servers and two others for the load, if there are four.
    pub(crate) fn divide() -> Result<Self> {
        let mask = sched_getaffinity(None)?;
        let all: Vec<usize> = (0..CpuSet::MAX_CPU)
            .filter(|core| mask.is_set(*core))
            .collect();
        let half = all.len() / 2;
        Ok(match all.len() {
            0..4 => Self {
                servers: all.clone(),
                load: all,
            },
            _ => Self {
                servers: all[..2].to_vec(),
                load: all[half..half + 2].to_vec(),
            },
        })
    }

    /// Whether servers and load have cores of their own.
    pub(crate) fn apart(&self) -> bool {
        self.servers != self.load
    }
}

/// Keeps the calling thread, and what it starts from now on, on these cores.
pub(crate) fn pin(cores: &[usize]) -> Result<()> {
    let mut mask = CpuSet::new();
    cores.iter().for_each(|core| mask.set(*core));
    sched_setaffinity(None, &mask).context("pinning a thread")
}

/// Runs `work` on a thread that is pinned to `cores`: a process started there stays there.
pub(crate) fn pinned<T: Send>(
    cores: &[usize],
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| pin(cores).and_then(|()| work()));
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// User and system time of process `root`, its threads, its children and theirs.
pub(crate) fn spent(root: u32) -> Result<Duration> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut ticks = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse() else {
            continue;
        };
        // A process that ended meanwhile is none of ours: ours run until they are stopped.
        let Some((parent, used)) = stat(pid) else {
            continue;
        };
        children.entry(parent).or_default().push(pid);
        ticks.insert(pid, used);
    }
    let mut sum = *ticks
        .get(&root)
        .with_context(|| format!("process {root} has ended"))?;
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            sum += ticks[child];
            open.push(*child);
        }
    }
    Ok(TICK * sum)
}

/// The parent of a process, and the ticks that it and its dead children used.
fn stat(pid: u32) -> Option<(u32, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name, in which anything may stand.
    let (_, fields) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = fields
        .get(11..15)?
        .iter()
        .filter_map(|ticks| ticks.parse::<u32>().ok())
        .sum();
    Some((fields.get(1)?.parse().ok()?, ticks))
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    status(pid, "VmRSS:")
}

/// The most resident memory that a process has had, in bytes.
pub(crate) fn peak(pid: u32) -> Result<u64> {
    status(pid, "VmHWM:")
}

fn status(pid: u32, name: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .with_context(|| format!("no {name}"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}
