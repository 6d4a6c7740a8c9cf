//! `Needs`: the memory that a configuration may take at worst, part by part. The manual has the
//! formula, and `tests/confined.rs` runs a server in exactly as much.

use serde::Serialize;

use super::Config;
use crate::guest;
use crate::http;
use crate::store;
use crate::telemetry::Memory;

/// A part of what a server may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// What takes it.
    pub what: &'static str,
    /// Bytes.
    pub bytes: u64,
    /// What it comes from.
    pub from: String,
}

/// What a server may take at worst.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Needs {
    /// Part by part.
    pub parts: Vec<Part>,
    /// All of it, in bytes.
    pub sum: u64,
    /// Bytes that compilations and readers of debug information may take on top. They run in processes
    /// of their own, which the kernel ends before the server where memory runs out.
    pub children: u64,
}

const MIB: u64 = 1 << 20;

/// The program, its threads, incidents, metrics and what the allocator keeps for later.
const BASE: u64 = 100 * MIB;

/// What the allocator's size classes and half-used pages add to what the store and the base hold.
fn with_slack(bytes: u64) -> u64 {
    bytes + bytes * 15 / 100
}

/// Compressions at once: `app::threads`.
const CODERS: u64 = 4;

/// Bytes that coding a body takes beside the body and what it becomes.
const CODER: u64 = 8 * MIB;

/// The codings of a body, and the body itself.
const FORMS: u64 = 4;

impl Needs {
    /// What `config` may take.
    pub fn of(config: &Config) -> Self {
        let returned = config.returned;
        let sandboxes = guest::Needs::of(&config.engine, returned);
        let mut parts = of_store(&config.store);
        let mut part = |what, bytes, from: String| parts.push(Part { what, bytes, from });
        part("the server", with_slack(BASE), String::new());
        let guest::Needs {
            places,
            memory,
            beside,
            listings,
            children,
        } = sandboxes;
        let from = format!(
            "{places} × ({} of `memory` + {}): {} `generations.concurrency`, as many API requests, \
             and {} loads",
            mib(memory),
            mib(beside),
            config.engine.instances,
            places - 2 * u64::from(config.engine.instances),
        );
        part("sandboxes", places * (memory + beside), from);
        part(
            "lists of paths",
            listings,
            "145 bytes for each path that is being listed".to_owned(),
        );
        let waiting = u64::from(config.engine.instances) * returned;
        let coding = waiting + CODERS * (FORMS * returned + CODER);
        let from = format!("{CODERS} at once, of `page` and `props`: {}", mib(returned));
        part("pages being compressed", coding, from);
        let connections = config.http.max_connections as u64;
        let from = format!(
            "{connections} × {} KiB (`server.connections`)",
            http::CONNECTION_BYTES >> 10
        );
        part("connections", connections * http::CONNECTION_BYTES, from);
        let under_way = config.http.in_flight as u64;
        part(
            "requests and responses under way",
            under_way,
            "`server.in-flight`".to_owned(),
        );
        let uploads = config.http.upload_bytes();
        part(
            "bodies of requests",
            uploads,
            "to API routes and webhooks".to_owned(),
        );
        let sum = parts.iter().map(|part| part.bytes).sum();
        Self {
            parts,
            sum,
            children,
        }
    }

    /// What to tell where there is less memory than this may take.
    pub fn shortage(&self, has: Option<Memory>) -> Option<String> {
        let has = has?.total;
        (has < self.sum).then(|| {
            format!(
                "the server may take {} at worst, and has {} (`wisr config` shows what takes it): \
                 lower `generations.concurrency`, `memory` of routes, `store.memory` or \
                 `server.connections`",
                mib(self.sum),
                mib(has)
            )
        })
    }
}

fn of_store(store: &store::Config) -> Vec<Part> {
    let memory = store.memory as u64;
    let mut parts = vec![Part {
        what: "pages in memory",
        bytes: with_slack(memory),
        from: "1.15 × `store.memory`".to_owned(),
    }];
    if store.folder.is_some() {
        // What two reads of the disk's tables keep.
        let tenths = 2 * (memory / 10).clamp(16 * MIB, 64 * MIB);
        parts.push(Part {
            what: "the store on disk",
            bytes: with_slack(tenths + 64 * MIB + 48 * MIB),
            from: "1.15 × (2 × a tenth of `store.memory` + 64 MiB that wait + 48 MiB of tables)"
                .to_owned(),
        });
    }
    parts
}

/// A size as the manual writes it.
pub fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(MIB))
}

#[cfg(test)]
mod tests {
    use super::super::Overrides;
    use super::*;

    fn of(text: &str) -> Needs {
        let site = tempfile::tempdir().unwrap();
        std::fs::write(site.path().join("wisr.toml"), text).unwrap();
        Needs::of(&Config::load(site.path(), &Overrides::default()).unwrap())
    }

    fn part(needs: &Needs, what: &str) -> u64 {
        let found = needs.parts.iter().find(|part| part.what == what);
        found
            .unwrap_or_else(|| panic!("no part {what}: {needs:?}"))
            .bytes
            / MIB
    }

    /// The figures of the manual, for two cores.
    #[test]
    fn the_manual_has_the_figures_of_the_defaults() {
        let needs = of("[generations]\nconcurrency = 4");
        let manual = include_str!("../../README.md");
        let row = |part: &Part| format!("| {} | {} |", part.what, mib(part.bytes));
        for part in &needs.parts {
            assert!(
                manual.contains(&row(part)),
                "the manual has no {:?}",
                row(part)
            );
        }
        let sum = format!("| all of it | {} |", mib(needs.sum));
        assert!(manual.contains(&sum), "the manual has no {sum:?}");
    }

    #[test]
    fn every_part_follows_its_keys() {
        let small = of(
            "[store]\nmemory = \"16MiB\"\ndurable = false\n[generations]\n\
                        concurrency = 1\n[server]\nconnections = 100\n[defaults]\n\
                        memory = \"32MiB\"\npage = \"1MiB\"\nprops = \"64KiB\"",
        );
        assert_eq!(part(&small, "pages in memory"), 18);
        assert!(
            !small
                .parts
                .iter()
                .any(|part| part.what == "the store on disk")
        );
        let one = of("[generations]\nconcurrency = 1");
        let two = of("[generations]\nconcurrency = 2");
        let more = part(&two, "sandboxes") - part(&one, "sandboxes");
        assert!(more > 2 * 128 && more < 2 * 180, "{more}");
        let wide = of("[generations]\nconcurrency = 1\n[routes.\"/a\"]\nmemory = \"1GiB\"");
        assert!(
            part(&wide, "sandboxes") > 6 * 1024,
            "the largest route counts"
        );
        assert_eq!(
            small.sum,
            small.parts.iter().map(|part| part.bytes).sum::<u64>()
        );
    }

    #[test]
    fn less_memory_is_told() {
        let needs = of("");
        let with = |total| needs.shortage(Some(Memory { total, left: 0 }));
        assert_eq!(with(needs.sum), None);
        assert!(
            with(needs.sum - 1)
                .unwrap()
                .contains("generations.concurrency")
        );
        assert_eq!(needs.shortage(None), None);
    }
}
