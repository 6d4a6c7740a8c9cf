//! `Memory`: how much memory this process may have, and how much of it is left.
//!
//! The machine says it in `/proc/meminfo`, and the control groups that the process is in say it of
//! themselves (version 1 and 2): a container has what the tightest of them leaves. A group's page
//! cache that nobody used lately is left, too: the kernel takes it back before it kills.

use std::fs;
use std::path::{Path, PathBuf};

/// What there is for this process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All that it may have, with its children and neighbours: that of the machine, or of the
    /// smallest control group around it.
    pub total: u64,
    /// What nobody has of that.
    pub left: u64,
}

/// The files of a version of control groups.
struct Files {
    /// The type of its mounts.
    mount: &'static str,
    limits: &'static [&'static str],
    used: &'static str,
    /// The line of `memory.stat` with the page cache that was not used lately.
    cache: &'static str,
}

const V1: Files = Files {
    mount: "cgroup",
    limits: &["memory.limit_in_bytes"],
    used: "memory.usage_in_bytes",
    cache: "total_inactive_file",
};

/// Above `memory.high` a group is slowed down until it is as good as dead.
const V2: Files = Files {
    mount: "cgroup2",
    limits: &["memory.max", "memory.high"],
    used: "memory.current",
    cache: "inactive_file",
};

impl Memory {
    /// What there is at the moment; none where the kernel does not say.
    pub fn now() -> Option<Self> {
        Self::below(Path::new("/"))
    }

    /// The same by the files below `root`.
    fn below(root: &Path) -> Option<Self> {
        let groups = groups(root).into_iter();
        let groups = groups.filter_map(|(folder, files)| Self::of_group(&folder, files));
        // Hidden where only processes are shown, as under systemd's `ProcSubset=pid`.
        let machine = Self::of_machine(root).into_iter();
        machine.chain(groups).reduce(|least, group| Self {
            total: least.total.min(group.total),
            left: least.left.min(group.left),
        })
    }

    fn of_machine(root: &Path) -> Option<Self> {
        let told = fs::read_to_string(root.join("proc/meminfo")).ok()?;
        let row = |name: &str| Some(number(&told, name)?.saturating_mul(1024));
        Some(Self {
            total: row("MemTotal:")?,
            left: row("MemAvailable:")?,
        })
    }

    fn of_group(folder: &Path, files: &Files) -> Option<Self> {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        // A limit that is none is a word, or larger than any machine.
        let limits = files.limits.iter().filter_map(|name| read(name));
        let total = limits
            .filter_map(|limit| limit.trim().parse::<u64>().ok())
            .min()?;
        let used = read(files.used)?.trim().parse::<u64>().ok()?;
        let cache = read("memory.stat").and_then(|stat| number(&stat, files.cache));
        let used = used.saturating_sub(cache.unwrap_or(0));
        Some(Self {
            total,
            left: total.saturating_sub(used),
        })
    }
}

/// The number after a name at the beginning of a line.
fn number(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    lines.find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok())?
    })
}

/// The folders of the control groups that this process is in, and of those around them.
fn groups(root: &Path) -> Vec<(PathBuf, &'static Files)> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let (own, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
    let mut all = Vec::new();
    for line in own.lines() {
        // `4:memory:/path`, or `0::/path` for version 2.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let files = match controllers {
            "" => &V2,
            names if names.split(',').any(|name| name == "memory") => &V1,
            _ => continue,
        };
        for (within, mount) in mounts.lines().filter_map(|line| mounted(line, files)) {
            let mount = root.join(mount.trim_start_matches('/'));
            // In a container the mount may begin at its own group, or the path not be shown at all.
            let inside = Path::new(path)
                .strip_prefix(within)
                .unwrap_or(Path::new(""));
            let folders = mount.join(inside);
            let folders = folders.ancestors().take_while(|at| at.starts_with(&mount));
            all.extend(folders.map(|folder| (folder.to_owned(), files)));
        }
    }
    all
}

/// Which part of the hierarchy a line of `mountinfo` (`proc(5)`) mounts, and where.
fn mounted<'a>(line: &'a str, files: &Files) -> Option<(&'a str, &'a str)> {
    let (before, after) = line.split_once(" - ")?;
    let (mut before, mut after) = (before.split(' ').skip(3), after.split(' '));
    let (kind, options) = (after.next()?, after.nth(1)?);
    let is_it = kind == files.mount
        && (kind == V2.mount || options.split(',').any(|option| option == "memory"));
    is_it.then_some((before.next()?, before.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A machine of 8 GiB, of which 6 are left, with these files.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let meminfo = "MemTotal: 8388608 kB\nMemFree: 1 kB\nMemAvailable: 6291456 kB\n";
        for (path, text) in [("proc/meminfo", meminfo)].iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn found(files: &[(&str, &str)]) -> (u64, u64) {
        let root = machine(files);
        let memory = Memory::below(root.path()).unwrap();
        (memory.total / MIB, memory.left / MIB)
    }

    const MOUNT_V2: (&str, &str) = (
        "proc/self/mountinfo",
        "1 0 0:1 / / rw - ext4 /dev/vda rw\n30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    );

    #[test]
    fn without_groups_the_machine_counts() {
        assert_eq!(found(&[]), (8192, 6144));
        assert!(Memory::below(Path::new("/nowhere")).is_none());
        let free = [
            MOUNT_V2,
            ("proc/self/cgroup", "0::/a\n"),
            ("sys/fs/cgroup/a/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.current", "5\n"),
        ];
        assert_eq!(found(&free), (8192, 6144));
    }

    #[test]
    fn the_tightest_group_around_counts_less_the_cache() {
        let mut files = vec![
            MOUNT_V2,
            ("proc/self/cgroup", "0::/pod/wisr\n"),
            ("sys/fs/cgroup/pod/wisr/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/pod/wisr/memory.current", "104857600\n"),
            ("sys/fs/cgroup/pod/memory.max", "536870912\n"),
            ("sys/fs/cgroup/pod/memory.current", "314572800\n"),
            (
                "sys/fs/cgroup/pod/memory.stat",
                "anon 1\ninactive_file 104857600\nactive_file 9\n",
            ),
        ];
        assert_eq!(found(&files), (512, 312));
        files.push(("sys/fs/cgroup/pod/wisr/memory.high", "209715200\n"));
        assert_eq!(found(&files), (200, 100));
        let root = machine(&files);
        fs::remove_file(root.path().join("proc/meminfo")).unwrap();
        let hidden = Memory::below(root.path()).unwrap();
        assert_eq!((hidden.total / MIB, hidden.left / MIB), (200, 100));
    }

    #[test]
    fn groups_of_version_1_count_also_where_their_mount_begins_at_the_container() {
        let files = |within: &str, folder: &str| {
            let mounts = format!(
                "33 1 0:29 {within} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                 34 1 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
            );
            let path = |name: &str| format!("sys/fs/cgroup/memory{folder}/{name}");
            let owned = [
                ("proc/self/mountinfo".to_owned(), mounts),
                (
                    "proc/self/cgroup".to_owned(),
                    "5:cpu:/x\n4:memory:/docker/7\n0::/\n".to_owned(),
                ),
                (path("memory.limit_in_bytes"), "367001600\n".to_owned()),
                (path("memory.usage_in_bytes"), "209715200\n".to_owned()),
                (
                    path("memory.stat"),
                    "cache 1\ntotal_inactive_file 104857600\n".to_owned(),
                ),
            ];
            let files: Vec<_> = owned
                .iter()
                .map(|(path, text)| (&**path, &**text))
                .collect();
            found(&files)
        };
        assert_eq!(files("/", "/docker/7"), (350, 250));
        assert_eq!(files("/docker/7", ""), (350, 250));
        // The group's path is of another view of the hierarchy.
        assert_eq!(files("/other", ""), (350, 250));
    }
}
