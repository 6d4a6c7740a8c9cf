//! `Engine::load`: a module's way from bytes to something that can be instantiated. Each step may
//! refuse it, with a reason that its author can act on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME as ADAPTER_NAME,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER as ADAPTER,
};
use wasmparser::{Parser, Payload, Validator};
use wasmtime::component::{Component, InstancePre};
use wit_component::ComponentEncoder;

use super::artifact::{Compiled, Fingerprint};
use super::bindings::exports::wisr::page::{page, paths};
use super::dry_run::dry_run;
use super::engine::Engine;
use super::limits::MODULE_BYTES;
use super::meter::words;
use super::module::{
    ApiExports, LoadError, Module, ModuleKind, PageExports, Role, incoming_handler,
};
use super::sandbox::State;
use super::trap::{self, brief, story};
use crate::page::Digest;

impl Engine {
    /// Reads, checks, adapts if it is a core module, compiles (or loads what was compiled before)
    /// and starts a module once. Takes a core for as long as compiling takes.
    ///
    /// # Errors
    /// The first check that it fails.
    pub async fn load(&self, bytes: Vec<u8>) -> Result<Arc<Module>, LoadError> {
        let turn = self.compilation().await;
        let engine = self.clone();
        // Compiling cannot be interrupted: the turn ends with it, even if nobody waits any more.
        let work = move || {
            let _turn = turn;
            prepare(&engine, bytes)
        };
        let module = tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|lost| Err(LoadError::Compile(lost.to_string())))?;
        let module = Arc::new(module);
        dry_run(self, &module).await?;
        Ok(module)
    }
}

/// Everything up to the first instance; blocks.
fn prepare(engine: &Engine, bytes: Vec<u8>) -> Result<Module, LoadError> {
    let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
    let kind = recognise(&bytes)?;
    let bytes = match kind {
        ModuleKind::Component => bytes,
        ModuleKind::AdaptedCore => adapt(&bytes)?,
    };
    validate(&bytes)?;
    let (component, compiled_size, compile_time) = open(engine, &bytes)?;
    check_memory(&component, engine.max_memory())?;
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
        digest,
        kind,
        role,
        imports: imports.collect(),
        size,
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
    } else if !Parser::is_core_wasm(bytes) {
        Err(LoadError::NotWasm)
    } else if names_its_interface(bytes)? {
        Ok(ModuleKind::AdaptedCore)
    } else {
        Err(LoadError::NoComponentType)
    }
}

/// Whether wit-bindgen left its section: without it, a module encodes to an empty component.
fn names_its_interface(core: &[u8]) -> Result<bool, LoadError> {
    for payload in Parser::new(0).parse_all(core) {
        match payload.map_err(|error| LoadError::Malformed(story(&error)))? {
            Payload::CustomSection(section) if section.name().starts_with("component-type") => {
                return Ok(true);
            }
            _ => {}
        }
    }
    Ok(false)
}

/// Makes a core module a component. The reactor adapter, since a page has no `main`.
fn adapt(core: &[u8]) -> Result<Vec<u8>, LoadError> {
    let encode = || {
        ComponentEncoder::default()
            .validate(true)
            .module(core)
            .and_then(|encoder| encoder.adapter(ADAPTER_NAME, ADAPTER))
            .and_then(|mut encoder| encoder.encode())
    };
    match catch_unwind(encode) {
        Ok(encoded) => encoded.map_err(|error| LoadError::Malformed(story(&error))),
        // The encoder trusts that section to be a tool's work.
        Err(panic) => Err(LoadError::Malformed(format!(
            "its `component-type` section contradicts itself ({})",
            words(&*panic)
        ))),
    }
}

fn validate(component: &[u8]) -> Result<(), LoadError> {
    match Validator::new().validate_all(component) {
        Ok(_) => Ok(()),
        Err(error) => Err(LoadError::Malformed(story(&error))),
    }
}

/// The component, its size in native code, and the time to compile it unless it was kept.
fn open(engine: &Engine, bytes: &[u8]) -> Result<(Component, u64, Option<Duration>), LoadError> {
    let runtime = engine.runtime();
    let name = Fingerprint::of(runtime, bytes);
    let artifacts = engine.artifacts();
    if let Some(kept) = artifacts.and_then(|artifacts| artifacts.find(name)) {
        match kept.open(runtime) {
            Ok(component) => return warm(component, kept.size(), None),
            Err(error) => tracing::warn!("a kept module is compiled again: {error:#}"),
        }
        if let Some(artifacts) = artifacts {
            artifacts.remove(name);
        }
    }
    let start = Instant::now();
    let code = compile(engine, bytes)?;
    let time = start.elapsed();
    let compiled = match artifacts {
        Some(artifacts) => artifacts.keep(name, code),
        None => Compiled::Fresh(code),
    };
    // The code is this engine's own, so all that it can object to is what the module asks for.
    let component = compiled
        .open(runtime)
        .map_err(|error| LoadError::NeedsTooMuch(story(&error)))?;
    warm(component, compiled.size(), Some(time))
}

/// The first instance should not have to make the memory image that all others share.
fn warm(
    component: Component,
    size: u64,
    time: Option<Duration>,
) -> Result<(Component, u64, Option<Duration>), LoadError> {
    component
        .initialize_copy_on_write_image()
        .map_err(|error| LoadError::NeedsTooMuch(story(&error)))?;
    Ok((component, size, time))
}

/// Compiles on the threads of low priority. A panic of the compiler refuses this module alone.
fn compile(engine: &Engine, bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
    let compile = || engine.runtime().precompile_component(bytes);
    match catch_unwind(AssertUnwindSafe(|| engine.compilers().install(compile))) {
        Ok(Ok(code)) => Ok(code),
        Ok(Err(error)) => Err(LoadError::Compile(story(&error))),
        Err(panic) => Err(LoadError::Compile(format!(
            "the compiler panicked, which is its bug: {}",
            words(&*panic)
        ))),
    }
}

fn check_memory(component: &Component, limit: u64) -> Result<(), LoadError> {
    const WASM_PAGE: u64 = 64 << 10;
    let pages = component
        .resources_required()
        .and_then(|required| required.max_initial_memory_size)
        .unwrap_or(0);
    let bytes = pages.saturating_mul(WASM_PAGE);
    if bytes > limit {
        return Err(LoadError::NeedsTooMuch(format!(
            "{} of memory from the start, where at most {} are allowed (limit `memory`)",
            trap::size(bytes),
            trap::size(limit)
        )));
    }
    Ok(())
}
