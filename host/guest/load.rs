//! `Engine::load`: a module's way from bytes to something that can be instantiated. Each step may
//! refuse it, with a reason that its author can act on.

use std::fmt::Display;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use wasmparser::Parser;
use wasmtime::component::Component;

use super::artifact::{Compiled, Fingerprint};
use super::code::{Code, Facts, Native};
use super::compile::Turn;
use super::engine::{Engine, for_compiling};
use super::limits::{MEMORIES, MODULE_BYTES, TABLE_ELEMENTS, TABLES};
use super::module::{LoadError, Module, ModuleKind};
use super::runtime::{Runtime, Tier};
use super::trap::story;
use crate::page::{Cost, Digest};

impl Engine {
    /// Reads, checks, adapts if it is a core module, compiles (or loads what was compiled before)
    /// and starts a module once. Takes a core for as long as compiling takes, and no longer than
    /// whoever asked waits. A large module runs on code that was compiled in haste at first, and
    /// gets better code by itself when that is made.
    ///
    /// # Errors
    /// The first check that it fails.
    pub async fn load(&self, bytes: Vec<u8>) -> Result<Arc<Module>, LoadError> {
        self.load_as(bytes, false).await
    }

    /// The same for a file that was refused, and that nobody has touched since.
    ///
    /// # Errors
    /// The first check that it fails.
    pub async fn load_again(&self, bytes: Vec<u8>) -> Result<Arc<Module>, LoadError> {
        self.load_as(bytes, true).await
    }

    async fn load_as(&self, bytes: Vec<u8>, is_retry: bool) -> Result<Arc<Module>, LoadError> {
        let bytes = Bytes::from(bytes);
        let (engine, module) = (self.clone(), bytes.clone());
        let (file, kept) = blocking(move || {
            let file = FileFacts::of(&engine, &module)?;
            let kept = find(&engine, file.name);
            Ok((file, kept))
        })
        .await?;
        let tried = match kept {
            Some(kept) => Some(kept),
            None => self.again(&file).await?,
        };
        let (native, start) = match tried {
            Some(tried) => tried,
            None => {
                let fresh = self.compile_first(&file, &bytes, is_retry).await?;
                self.settle(fresh, file.digest).await?
            }
        };
        let (code, facts) = self.prepare(native).await?;
        let code = Arc::new(code);
        let tier = code.runtime.tier;
        let module = Arc::new(Module {
            digest: file.digest,
            kind: file.kind,
            role: facts.role,
            imports: facts.imports,
            size: file.size,
            start,
            code: ArcSwap::new(code),
            upgrade: OnceLock::new(),
        });
        if tier == Tier::Baseline {
            self.upgrade(&module, file.name, bytes);
        }
        Ok(module)
    }

    /// What was compiled before and is of use, tried anew: it never passed, or that is not known.
    async fn again(&self, file: &FileFacts) -> Result<Option<Tried>, LoadError> {
        let (engine, name) = (self.clone(), file.name);
        let found = blocking(move || Ok(engine.artifacts().and_then(|kept| kept.find(name))));
        let Some(kept) = found.await? else {
            return Ok(None);
        };
        let fresh = Fresh {
            compiled: kept,
            runtime: Arc::clone(self.runtime()),
            time: None,
            name: Some(name),
        };
        match self.settle(fresh, file.digest).await {
            // What it asks for is looked at where it is compiled, by the file itself.
            Err(LoadError::NeedsTooMuch(_)) => Ok(None),
            settled => settled.map(Some),
        }
    }

    /// A module's first code.
    async fn compile_first(
        &self,
        file: &FileFacts,
        bytes: &Bytes,
        is_retry: bool,
    ) -> Result<Fresh, LoadError> {
        let turn = self.compilation(file.size, false).await;
        let left = turn.space();
        if let Some(refusal) = self.killed().refusal(file.name, Some(left), is_retry) {
            return Err(refusal);
        }
        let compiled = match self.in_haste(file, bytes, &turn).await {
            Ok(None) => self.make(file.name, bytes.clone(), &turn).await,
            Ok(Some(fresh)) => Ok(fresh),
            Err(error) => Err(error),
        };
        self.killed().note(file.name, left, &compiled);
        compiled
    }

    /// A large module's code by the baseline compiler, or none where the optimising one is to make
    /// the first code already.
    async fn in_haste(
        &self,
        file: &FileFacts,
        bytes: &Bytes,
        turn: &Turn,
    ) -> Result<Option<Fresh>, LoadError> {
        let skipped = |reason: &dyn Display| {
            let module = file.digest.short();
            tracing::info!(
                module,
                "not compiled in haste, so it takes longer: {reason}"
            );
        };
        let runtime = match self.baseline(file.size) {
            Ok(Some(runtime)) => runtime,
            Ok(None) => return Ok(None),
            Err(unknown) => {
                skipped(&unknown);
                return Ok(None);
            }
        };
        let start = Instant::now();
        let code = match self.compile(&runtime, bytes.clone(), turn).await {
            Ok(code) => code,
            // It may use what only the other compiler knows, such as tail calls.
            Err(error @ (LoadError::Compile(_) | LoadError::Crashed(_))) => {
                skipped(&error);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let time = Some(start.elapsed());
        Ok(Some(Fresh {
            // Of use for seconds: not worth waiting for a disk.
            compiled: Compiled::Fresh(code),
            runtime,
            time,
            name: None,
        }))
    }

    /// Compiles a module for good, and keeps what came of it.
    pub(super) async fn make(
        &self,
        name: Fingerprint,
        bytes: Bytes,
        turn: &Turn,
    ) -> Result<Fresh, LoadError> {
        let start = Instant::now();
        let runtime = Arc::clone(self.runtime());
        let code = self.compile(&runtime, bytes, turn).await?;
        let time = Some(start.elapsed());
        let engine = self.clone();
        let compiled = blocking(move || {
            Ok(match engine.artifacts() {
                Some(artifacts) => artifacts.keep(name, code),
                None => Compiled::Fresh(code),
            })
        });
        Ok(Fresh {
            compiled: compiled.await?,
            runtime,
            time,
            name: Some(name),
        })
    }

    /// Has code tried that never was, and makes it runnable here. That it passed is kept beside it.
    pub(super) async fn settle(&self, fresh: Fresh, module: Digest) -> Result<Tried, LoadError> {
        let start = self
            .dry_run(&fresh.compiled, &fresh.runtime, module)
            .await?;
        let engine = self.clone();
        blocking(move || {
            if let (Some(name), Some(artifacts), Compiled::Kept(_)) =
                (fresh.name, engine.artifacts(), &fresh.compiled)
            {
                artifacts.note_passed(name, &start);
            }
            let native = Native::open(&fresh.compiled, fresh.runtime, fresh.time)?;
            if let Compiled::Fresh(made) = &fresh.compiled {
                made.forget_code();
            }
            Ok((native, start))
        })
        .await
    }

    pub(super) async fn prepare(&self, native: Native) -> Result<(Code, Facts), LoadError> {
        blocking(move || Code::prepare(native)).await
    }
}

/// Code that no server has run yet.
pub(super) struct Fresh {
    compiled: Compiled,
    runtime: Arc<Runtime>,
    /// How long compiling took, unless it had been kept.
    time: Option<Duration>,
    /// By what it is kept, if it is.
    name: Option<Fingerprint>,
}

/// Code that passed its dry run, and what that took.
pub(super) type Tried = (Native, Cost);

impl Native {
    /// Code that `runtime`'s own compiler made.
    pub(super) fn open(
        compiled: &Compiled,
        runtime: Arc<Runtime>,
        time: Option<Duration>,
    ) -> Result<Self, LoadError> {
        // So all that there is to object to is what the module asks for. The pool does so in words
        // about itself; without one it can be looked at.
        let opened = compiled.open(&runtime.engine);
        let apart = || for_compiling(runtime.tier, false).and_then(|engine| compiled.open(&engine));
        if let Ok(component) = opened.as_ref().cloned().or_else(|_| apart()) {
            check_size(&component)?;
        }
        let component = opened.map_err(|error| LoadError::NeedsTooMuch(story(&error)))?;
        Ok(Self {
            component,
            runtime,
            size: compiled.size(),
            time,
            debug: compiled.debug(),
        })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|lost| Err(LoadError::Crashed(lost.to_string())))
}

/// What can be said of a file at a glance.
struct FileFacts {
    digest: Digest,
    size: u64,
    kind: ModuleKind,
    name: Fingerprint,
}

impl FileFacts {
    fn of(engine: &Engine, bytes: &[u8]) -> Result<Self, LoadError> {
        let kind = recognise(bytes)?;
        Ok(Self {
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            kind,
            name: Fingerprint::of(&engine.runtime().engine, bytes),
        })
    }
}

/// What was compiled and tried before, if it is still of use.
fn find(engine: &Engine, name: Fingerprint) -> Option<Tried> {
    let artifacts = engine.artifacts()?;
    let start = artifacts.passed(name)?;
    // It was tried when more was allowed.
    if start.memory > engine.max_memory() {
        return None;
    }
    let kept = artifacts.find(name)?;
    match kept.open(&engine.runtime().engine) {
        Ok(component) => {
            let native = Native {
                component,
                runtime: Arc::clone(engine.runtime()),
                size: kept.size(),
                time: None,
                debug: kept.debug(),
            };
            Some((native, start))
        }
        Err(error) => {
            tracing::warn!("a kept module is compiled again: {error:#}");
            artifacts.remove(name);
            None
        }
    }
}

/// What files of native code begin with (ELF).
const NATIVE: &[u8] = b"\x7fELF";

fn recognise(bytes: &[u8]) -> Result<ModuleKind, LoadError> {
    if bytes.len() > MODULE_BYTES {
        return Err(LoadError::TooLarge(bytes.len() as u64));
    }
    // Whatever it was compiled for; nothing more of it is looked at.
    if bytes.starts_with(NATIVE) {
        return Err(LoadError::Precompiled);
    }
    if Parser::is_component(bytes) {
        Ok(ModuleKind::Component)
    } else if Parser::is_core_wasm(bytes) {
        Ok(ModuleKind::AdaptedCore)
    } else {
        Err(LoadError::NotWasm)
    }
}

/// Holds a component to what each instance has, with or without a pool.
fn check_size(component: &Component) -> Result<(), LoadError> {
    // What has its modules from elsewhere finds nobody here to give them.
    let Some(needs) = component.resources_required() else {
        return Ok(());
    };
    let elements = needs.max_initial_table_size.unwrap_or(0);
    let told = if needs.num_memories > MEMORIES {
        format!(
            "{} memories, where at most {MEMORIES} are allowed (fixed): link its parts into one module",
            needs.num_memories
        )
    } else if needs.num_tables > TABLES {
        format!(
            "{} tables, where at most {TABLES} are allowed (fixed): link its parts into one module",
            needs.num_tables
        )
    } else if elements > TABLE_ELEMENTS as u64 {
        format!(
            "a table of {elements} elements, where at most {TABLE_ELEMENTS} are allowed (fixed): call \
             fewer functions through pointers"
        )
    } else {
        return Ok(());
    };
    Err(LoadError::NeedsTooMuch(told))
}
