//! `Limits`: what one generation may use, and the fixed bounds that no configuration moves.

use std::time::Duration;

use super::runtime::Tier;

/// What one generation, or one request to an API route, may use of each thing. A field's name is its name in `wisr.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// CPU time, summed over all calls of the generation.
    pub cpu: Duration,
    /// Wall time, instantiation and waiting for the host included.
    pub wall: Duration,
    /// Bytes of all memories and tables of the instance, and of what the host holds for it.
    pub memory: u64,
    /// Bytes of a rendered body, or of the body that an API route answers with.
    pub page: u64,
    /// Bytes of the props' JSON.
    pub props: u64,
    /// Outgoing requests.
    pub fetches: u32,
    /// Outgoing requests at once.
    pub fetches_in_flight: u32,
    /// Bytes of outgoing bodies, each way.
    pub fetch_bytes: u64,
}

impl Limits {
    /// What they come to on code of this compiler: code that is slower for no fault of its author
    /// gets more CPU time, and as much more wall time. So a failure on it says of the module what
    /// one on optimised code does, and counts in its trial like any other.
    pub(super) fn on(&self, tier: Tier) -> Self {
        let cpu = self.cpu.saturating_mul(tier.factor());
        let more = cpu.saturating_sub(self.cpu);
        Self {
            cpu,
            wall: self.wall.saturating_add(more),
            ..self.clone()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu: Duration::from_secs(1),
            wall: Duration::from_secs(10),
            // CPython, compiled to WebAssembly, starts at some 60 MiB.
            memory: 128 << 20,
            page: 8 << 20,
            props: 1 << 20,
            fetches: 32,
            fetches_in_flight: 6,
            fetch_bytes: 8 << 20,
        }
    }
}

/// How often a running guest is interrupted to look at its CPU time and to let others run.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// Bytes of a module's file: twice the largest Python guest seen.
pub(super) const MODULE_BYTES: usize = 64 << 20;

/// Elements of one table: 8 bytes each. SpiderMonkey needs 7,888, dynamically linked CPython more.
pub(super) const TABLE_ELEMENTS: usize = 100_000;

/// Tables of one instance. An adapted Rust guest has 2.
pub(super) const TABLES: u32 = 16;

/// Linear memories of one instance. A guest has 1; components composed of others have several.
pub(super) const MEMORIES: u32 = 4;

/// Core instances of one component. An adapted Rust guest has 4, dynamically linked CPython dozens.
pub(super) const CORE_INSTANCES: u32 = 64;

/// Bytes of the host's records about one instance: four times wasmtime's figure.
pub(super) const INSTANCE_BYTES: usize = 4 << 20;

/// Bytes of stack for guest code. JavaScript and Python recurse deeper than wasmtime's 512 KiB.
pub(super) const STACK_BYTES: usize = 1 << 20;

/// Bytes of its stack that an ended instance leaves in place for the next one: what most pages
/// touch of it.
pub(super) const STACK_KEPT: usize = 64 << 10;

/// Bytes of a memory that an ended instance leaves in place, reset, for the next one: more than
/// most pages touch.
pub(super) const MEMORY_KEPT: usize = 4 << 20;

/// Bytes of a table that it leaves in place.
pub(super) const TABLE_KEPT: usize = 512 << 10;

/// Handles to resources that a guest holds at once.
pub(super) const HANDLES: usize = 4_096;

/// Host-side resources (streams, requests, timers) that exist for a guest at once.
pub(super) const RESOURCES: usize = 1_024;

/// Bytes of a resource's own records, beside what is counted for it.
pub(super) const RESOURCE_BYTES: u64 = 1 << 10;

/// Bytes of one set of HTTP fields in the host's memory.
pub(super) const FIELD_BYTES: usize = 128 << 10;

/// Bytes that the host counts for one field beside its name and value: a map doubles as it grows,
/// and has an index.
pub(super) const FIELD_OVERHEAD: usize = 256;

/// Bytes of a body that a guest may write at once; toolchains write 4 KiB or what they may.
pub(super) const BODY_CHUNK: usize = 64 << 10;

/// Writes of a body that wait for their reader. wasmtime adds one.
pub(super) const BODY_CHUNKS: usize = 1;

/// Bytes counted for the answer to a request from when it is sent until its body is read: what the
/// connection reads ahead, twice, since a piece that the guest has not taken holds the whole.
pub(super) const REPLY_BYTES: u64 = 2 * super::outbound::READ_AHEAD as u64;

/// Random bytes in one call. Seeds need 32.
pub(super) const RANDOM_BYTES: u64 = 64 << 10;

/// Bytes that one call may hand over beside its page or props: headers, tags, messages.
pub(super) const CALL_BYTES: u64 = 1 << 20;

/// Bytes of the host's copy of what `static-paths` lists: some 1,100,000 paths of one parameter.
/// Held for the moment in which they become paths, of which each takes half as much; with four
/// modules that list at once (`TRIALS`), 640 MiB at worst. A list half as long would not do for a
/// million pages, which one route may well have.
pub(super) const LISTING_BYTES: u64 = 160 << 20;

/// Bytes of stdout, stderr and messages that one generation may put into the log.
pub(super) const LOG_BYTES: usize = 64 << 10;

/// Bytes of one line of the log; the rest of a longer line follows as a line of its own.
pub(super) const LOG_LINE_BYTES: usize = 4 << 10;

/// The last bytes of stderr that a failure keeps: a panic message and some of what led to it.
pub(super) const STDERR_BYTES: usize = 4 << 10;

/// Bytes of a guest's error message that are kept.
pub(super) const MESSAGE_BYTES: usize = 4 << 10;

/// Bytes of a function's name, or of its place, in a backtrace.
pub(super) const FRAME_BYTES: usize = 512;

/// Bytes of a function's or a module's name in a `name` section: what WebAssembly allows the names
/// of imports and exports.
pub(super) const NAME_BYTES: usize = 100_000;

/// Frames of a backtrace.
pub(super) const BACKTRACE_FRAMES: usize = 32;

/// CPU and wall time of the dry run that checks a new module.
pub(super) const DRY_RUN: Limits = Limits {
    // SpiderMonkey and CPython start from snapshots; nothing needs longer than a page may take.
    cpu: Duration::from_secs(1),
    // Its process gives way to all others: on a busy machine a second of CPU time is long in coming.
    wall: Duration::from_secs(60),
    memory: u64::MAX,
    page: 0,
    props: 0,
    fetches: 0,
    fetches_in_flight: 0,
    fetch_bytes: 0,
};
