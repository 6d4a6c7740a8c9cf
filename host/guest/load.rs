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
use super::dry_run::dry_run;
use super::engine::{Engine, for_compiling};
use super::limits::{MEMORIES, MODULE_BYTES, TABLE_ELEMENTS, TABLES};
use super::module::{LoadError, Module, ModuleKind};
use super::runtime::{Runtime, Tier};
use super::trap::story;
use crate::page::Digest;

impl Engine {
    /// Reads, checks, adapts if it is a core module, compiles (or loads what was compiled before)
    /// and starts a module once. Takes a core for as long as compiling takes, and no longer than
    /// whoever asked waits. A large module runs on code that was compiled in haste at first, and
    /// gets better code by itself when that is made.
    ///
    /// # Errors
    /// The first check that it fails.
    pub async fn load(&self, bytes: Vec<u8>) -> Result<Arc<Module>, LoadError> {
        let bytes = Bytes::from(bytes);
        let (engine, module) = (self.clone(), bytes.clone());
        let (file, kept) = blocking(move || {
            let file = FileFacts::of(&engine, &module)?;
            let kept = find(&engine, file.name);
            Ok((file, kept))
        })
        .await?;
        let native = match kept {
            Some(kept) => kept,
            None => {
                let _turn = self.compilation().await;
                match self.in_haste(&file, &bytes).await? {
                    Some(native) => native,
                    None => self.make(file.name, bytes.clone()).await?,
                }
            }
        };
        let (code, facts) = self.prepare(native).await?;
        let code = Arc::new(code);
        let start = dry_run(self, &code, facts.role, file.digest).await?;
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

    /// A large module's code by the baseline compiler, or none where the optimising one is to make
    /// the first code already.
    async fn in_haste(&self, file: &FileFacts, bytes: &Bytes) -> Result<Option<Native>, LoadError> {
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
        let code = match self.compile(&runtime, bytes.clone()).await {
            Ok(code) => code,
            // It may use what only the other compiler knows, such as tail calls.
            Err(error @ (LoadError::Compile(_) | LoadError::Crashed(_))) => {
                skipped(&error);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let time = Some(start.elapsed());
        // Of use for seconds: not worth waiting for a disk.
        let native = blocking(move || Native::open(&Compiled::Fresh(code), runtime, time)).await?;
        Ok(Some(native))
    }

    /// Compiles a module for good, and keeps what came of it.
    pub(super) async fn make(&self, name: Fingerprint, bytes: Bytes) -> Result<Native, LoadError> {
        let start = Instant::now();
        let runtime = Arc::clone(self.runtime());
        let code = self.compile(&runtime, bytes).await?;
        let time = Some(start.elapsed());
        let engine = self.clone();
        blocking(move || {
            let compiled = match engine.artifacts() {
                Some(artifacts) => artifacts.keep(name, code),
                None => Compiled::Fresh(code),
            };
            Native::open(&compiled, runtime, time)
        })
        .await
    }

    pub(super) async fn prepare(&self, native: Native) -> Result<(Code, Facts), LoadError> {
        blocking(move || Code::prepare(native)).await
    }
}

impl Native {
    /// Code that `runtime`'s own compiler made just now.
    fn open(
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

/// What was compiled before, if it is still of use.
fn find(engine: &Engine, name: Fingerprint) -> Option<Native> {
    let artifacts = engine.artifacts()?;
    let kept = artifacts.find(name)?;
    match kept.open(&engine.runtime().engine) {
        Ok(component) => Some(Native {
            component,
            runtime: Arc::clone(engine.runtime()),
            size: kept.size(),
            time: None,
            debug: kept.debug(),
        }),
        Err(error) => {
            tracing::warn!("a kept module is compiled again: {error:#}");
            artifacts.remove(name);
            None
        }
    }
}

fn recognise(bytes: &[u8]) -> Result<ModuleKind, LoadError> {
    if bytes.len() > MODULE_BYTES {
        return Err(LoadError::TooLarge(bytes.len() as u64));
    }
    if wasmtime::Engine::detect_precompiled(bytes).is_some() {
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
