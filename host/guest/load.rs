//! `Engine::load`: a module's way from bytes to something that can be instantiated. Each step may
//! refuse it, with a reason that its author can act on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmparser::{Parser, Payload};
use wasmtime::component::{Component, InstancePre};

use super::artifact::{Compiled, Fingerprint};
use super::bindings::exports::wisr::page::{page, paths};
use super::dry_run::dry_run;
use super::engine::Engine;
use super::limits::MODULE_BYTES;
use super::module::{
    ApiExports, LoadError, Module, ModuleKind, PageExports, Role, incoming_handler,
};
use super::sandbox::State;
use super::trap::{self, brief, story};
use crate::page::Digest;

impl Engine {
    /// Reads, checks, adapts if it is a core module, compiles (or loads what was compiled before)
    /// and starts a module once. Takes a core for as long as compiling takes, and no longer than
    /// whoever asked waits.
    ///
    /// # Errors
    /// The first check that it fails.
    pub async fn load(&self, bytes: Vec<u8>) -> Result<Arc<Module>, LoadError> {
        let engine = self.clone();
        let (file, bytes, kept) = blocking(move || {
            let file = FileFacts::of(&engine, &bytes)?;
            let kept = find(&engine, file.name);
            Ok((file, bytes, kept))
        })
        .await?;
        let native = match kept {
            Some(kept) => kept,
            None => {
                let _turn = self.compilation().await;
                self.make(file.name, bytes).await?
            }
        };
        let engine = self.clone();
        let module = blocking(move || prepare(&engine, file, native)).await?;
        let module = Arc::new(module);
        dry_run(self, &module).await?;
        Ok(module)
    }

    /// Compiles a module and keeps what came of it.
    async fn make(&self, name: Fingerprint, bytes: Vec<u8>) -> Result<Native, LoadError> {
        let start = Instant::now();
        let code = self.compile(bytes).await?;
        let time = start.elapsed();
        let engine = self.clone();
        blocking(move || {
            let compiled = match engine.artifacts() {
                Some(artifacts) => artifacts.keep(name, code),
                None => Compiled::Fresh(code),
            };
            // The code is this engine's own, so all that it can object to is what the module asks
            // for.
            let component = compiled
                .open(engine.runtime())
                .map_err(|error| LoadError::NeedsTooMuch(story(&error)))?;
            Ok(Native {
                component,
                size: compiled.size(),
                time: Some(time),
            })
        })
        .await
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
        check_memory(bytes, engine.max_memory())?;
        Ok(Self {
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            kind,
            name: Fingerprint::of(engine.runtime(), bytes),
        })
    }
}

/// A component in native code.
struct Native {
    component: Component,
    /// Bytes of code.
    size: u64,
    /// How long compiling took, unless it had been kept.
    time: Option<Duration>,
}

/// What was compiled before, if it is still of use.
fn find(engine: &Engine, name: Fingerprint) -> Option<Native> {
    let artifacts = engine.artifacts()?;
    let kept = artifacts.find(name)?;
    match kept.open(engine.runtime()) {
        Ok(component) => Some(Native {
            component,
            size: kept.size(),
            time: None,
        }),
        Err(error) => {
            tracing::warn!("a kept module is compiled again: {error:#}");
            artifacts.remove(name);
            None
        }
    }
}

/// Everything from native code to the first instance; blocks.
fn prepare(engine: &Engine, file: FileFacts, native: Native) -> Result<Module, LoadError> {
    let Native {
        component,
        size: compiled_size,
        time: compile_time,
    } = native;
    // The first instance should not have to make the memory image that all others share.
    component
        .initialize_copy_on_write_image()
        .map_err(|error| LoadError::NeedsTooMuch(story(&error)))?;
    let kinds = component.component_type();
    let runtime = engine.runtime();
    let exports: Vec<&str> = kinds.exports(runtime).map(|(name, _)| name).collect();
    let imports = kinds.imports(runtime).map(|(name, _)| name.to_owned());
    let contract = Contract::of(&exports)?;
    let instance = engine
        .linker()
        .instantiate_pre(&component)
        .map_err(|error| LoadError::MissingImport(story(&error)))?;
    let role = contract
        .find(&component, &instance)
        .map_err(|error| LoadError::WrongTypes(story(&error)))?;
    Ok(Module {
        digest: file.digest,
        kind: file.kind,
        role,
        imports: imports.collect(),
        size: file.size,
        compiled_size,
        compile_time,
        instance,
    })
}

/// The interface that every page exports.
const PAGE: &str = "wisr:page/page@0.1.0";

/// The interface that a page with a dynamic route may export.
const PATHS: &str = "wisr:page/paths@0.1.0";

/// The interface that every API route exports, in any of its compatible versions.
const API: &str = "wasi:http/incoming-handler@0.2.";

/// Which contract a module means to keep, before its types are compared.
enum Contract {
    Page,
    Api,
}

impl Contract {
    /// A page that can also answer requests is a page: that contract is ours.
    fn of(exports: &[&str]) -> Result<Self, LoadError> {
        if exports.contains(&PAGE) {
            Ok(Contract::Page)
        } else if exports.iter().any(|name| name.starts_with(API)) {
            Ok(Contract::Api)
        } else {
            Err(LoadError::NoRole(listed(exports)))
        }
    }

    fn find(self, component: &Component, instance: &InstancePre<State>) -> wasmtime::Result<Role> {
        Ok(match self {
            Contract::Page => Role::Page(PageExports {
                page: page::GuestIndices::new(instance)?,
                paths: component
                    .get_export_index(None, PATHS)
                    .map(|_| paths::GuestIndices::new(instance))
                    .transpose()?,
            }),
            Contract::Api => Role::Api(ApiExports(incoming_handler::GuestIndices::new(instance)?)),
        })
    }
}

fn listed(names: &[&str]) -> String {
    match names {
        [] => "nothing".to_owned(),
        names => brief(&names.join(", ")),
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

/// Before it is compiled: the pool would refuse it afterwards, in words about itself. What cannot be
/// read is left to the compiler, which says why.
fn check_memory(bytes: &[u8], limit: u64) -> Result<(), LoadError> {
    const WASM_PAGE: u64 = 64 << 10;
    let payloads = Parser::new(0).parse_all(bytes).map_while(Result::ok);
    let memories = payloads.filter_map(|payload| match payload {
        Payload::MemorySection(memories) => Some(memories.into_iter().map_while(Result::ok)),
        _ => None,
    });
    let least = memories.flatten().map(|memory| {
        let page = memory
            .page_size_log2
            .map_or(WASM_PAGE, |log| 1 << log.min(16));
        memory.initial.saturating_mul(page)
    });
    let bytes = least.max().unwrap_or(0);
    if bytes > limit {
        return Err(LoadError::NeedsTooMuch(format!(
            "{} of memory from the start, where at most {} are allowed (limit `memory`)",
            trap::size(bytes),
            trap::size(limit)
        )));
    }
    Ok(())
}
