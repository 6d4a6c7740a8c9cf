//! `Module`: a module that passed every check of `load`, with what there is to know about it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::code::Code;
use super::compile::Overran;
use super::limits::MODULE_BYTES;
use super::runtime::Tier;
use super::upgrade::Upgrade;
use crate::page::{Cost, Digest, Failure};

/// One module: checked, compiled, ready to be instantiated any number of times.
pub struct Module {
    pub(super) digest: Digest,
    pub(super) kind: ModuleKind,
    pub(super) role: Role,
    pub(super) imports: Vec<String>,
    pub(super) size: u64,
    /// What its first start took.
    pub(super) start: Cost,
    /// What runs from now on. Whatever compiler made it, it is the same module.
    pub(super) code: ArcSwap<Code>,
    /// Makes better code, and ends with the module.
    pub(super) upgrade: OnceLock<Upgrade>,
}

/// What a module is for, by what it exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It renders pages: `wisr:page/page`.
    Page(PageExports),
    /// It answers requests itself: `wasi:http/incoming-handler`.
    Api(ApiExports),
}

/// What a page exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageExports {
    /// Whether it lists its paths: `wisr:page/paths`.
    pub(super) paths: bool,
}

/// What an API route exports: its handler, and nothing that is optional.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiExports(pub(super) ());

/// What the file was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuleKind {
    /// A component, as `wasm32-wasip2` toolchains make them.
    Component,
    /// A core module for `wasm32-wasip1`, made into a component by an adapter.
    AdaptedCore,
}

/// Why a file is no module that can be served. The message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is larger than any page should be.
    #[error(
        "the file has {0} bytes, at most {MODULE_BYTES} (64 MiB) are allowed: build it in release \
         mode and strip it (`strip = \"debuginfo\"`)"
    )]
    TooLarge(u64),
    /// The file is native code.
    #[error(
        "the file is precompiled native code, which no sandbox could hold: put the `.wasm` itself \
         in the folder, wisr compiles it and keeps the result"
    )]
    Precompiled,
    /// The file is something else.
    #[error(
        "the file is not WebAssembly (it does not start with `\\0asm`): is it complete, and built \
         for `wasm32-wasip2`?"
    )]
    NotWasm,
    /// The file breaks the rules of WebAssembly.
    #[error("the file is not valid WebAssembly, or uses a proposal that wisr has off: {0}")]
    Malformed(String),
    /// A core module that says nothing of its interface.
    #[error(
        "a core module without a `component-type` section says nothing of its interface: was it \
         built without wit-bindgen? Use the wisr-guest crate, or make it a component first"
    )]
    NoComponentType,
    /// Neither a page nor an API route.
    #[error(
        "it exports neither `wisr:page/page@0.1.0`, so it is no page (in Rust, is \
         `wisr_guest::page!` called?), nor `wasi:http/incoming-handler@0.2`, so it is no API route \
         (is it built for the world `wasi:http/proxy`?). It exports: {0}"
    )]
    NoRole(String),
    /// A page or an API route of another contract.
    #[error(
        "its exports are not those of `wisr:page@0.1.0` or `wasi:http@0.2`, build it against that \
         package: {0}"
    )]
    WrongTypes(String),
    /// It needs what wisr does not have.
    #[error(
        "it imports what wisr does not offer: {0}. Offered are WASI 0.2, `wasi:http` 0.2 and \
         `wisr:page/host@0.1.0`, and to API routes `wisr:page/revalidate@0.1.0`"
    )]
    MissingImport(String),
    /// It cannot fit the sandbox.
    #[error("it needs more than its sandbox has: {0}")]
    NeedsTooMuch(String),
    /// The compiler cannot do it.
    #[error("it could not be compiled: {0}")]
    Compile(String),
    /// Compiling it ran into a limit.
    #[error(
        "compiling it {0}: is it built in release mode? If it must be so large, raise the limit"
    )]
    Overran(Overran),
    /// The compiler did not survive it.
    #[error("the compiler crashed on it ({0}): please report it, with the module")]
    Crashed(String),
    /// Somebody ended the compiler: mostly the kernel, for want of memory.
    #[error(
        "the process that compiled it was killed from outside: is the machine short of memory? It is \
         compiled again when the file, wisr or the memory that is left has changed"
    )]
    Killed,
    /// It took with it the process in which it was started.
    #[error(
        "starting it ended the process that tried it ({0}): no server is to run it; please report it, \
         with the module"
    )]
    Died(String),
    /// Somebody ended that process: mostly the kernel, for want of memory.
    #[error("the process that tried it was killed from outside: is the machine short of memory?")]
    KilledInTrial,
    /// There is no compiler.
    #[error("no process could be started to compile or try it: {0}")]
    NoCompiler(String),
    /// It does not even start.
    #[error("it does not start: {0}")]
    StartUp(Box<Failure>),
}

impl LoadError {
    /// Whether the machine may have been at fault, so that the same file may pass another time.
    pub fn may_pass_later(&self) -> bool {
        match self {
            LoadError::Compile(_)
            | LoadError::Overran(Overran::Wall(_) | Overran::Left(_))
            | LoadError::Crashed(_)
            | LoadError::Killed
            | LoadError::KilledInTrial
            | LoadError::NoCompiler(_)
            | LoadError::StartUp(_) => true,
            LoadError::TooLarge(_)
            | LoadError::Precompiled
            | LoadError::Died(_)
            | LoadError::NotWasm
            | LoadError::Malformed(_)
            | LoadError::NoComponentType
            | LoadError::NoRole(_)
            | LoadError::WrongTypes(_)
            | LoadError::MissingImport(_)
            | LoadError::NeedsTooMuch(_)
            | LoadError::Overran(Overran::Memory(_) | Overran::Cpu(_) | Overran::Code) => false,
        }
    }
}

impl ModuleKind {
    /// The word for tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            ModuleKind::Component => "component",
            ModuleKind::AdaptedCore => "adapted-core",
        }
    }
}

impl Role {
    /// The interfaces that it exports, in words.
    pub fn exports(&self) -> &'static [&'static str] {
        match self {
            Role::Page(PageExports { paths: false }) => &["page"],
            Role::Page(PageExports { paths: true }) => &["page", "paths"],
            Role::Api(_) => &["incoming-handler"],
        }
    }
}

impl Module {
    /// The hash of the file.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What the file was.
    pub fn kind(&self) -> ModuleKind {
        self.kind
    }

    /// The names of the interfaces that it imports.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// What it is for.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// Whether it can make outgoing requests, if it is granted hosts.
    pub fn wants_http(&self) -> bool {
        let http = |name: &String| name.starts_with("wasi:http/outgoing-handler");
        self.imports.iter().any(http)
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of the compiled code.
    pub fn compiled_size(&self) -> u64 {
        self.code.load().size
    }

    /// How long compiling took; none when it had been compiled before.
    pub fn compile_time(&self) -> Option<Duration> {
        self.code.load().time
    }

    /// Which compiler made the code that it runs on now.
    pub fn tier(&self) -> Tier {
        self.code.load().runtime.tier
    }

    /// What its first start took, in an empty sandbox: its memory is what it has at rest.
    pub fn start(&self) -> &Cost {
        &self.start
    }

    pub(super) fn code(&self) -> Arc<Code> {
        self.code.load_full()
    }
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Module({:?}, {})", self.digest, self.kind.as_str())
    }
}
