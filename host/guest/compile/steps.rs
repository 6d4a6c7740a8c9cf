//! `compile`: from a module's bytes to native code: all that reads a stranger's bytes at length.

use std::panic::catch_unwind;

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME as ADAPTER_NAME,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER as ADAPTER,
};
use wasmparser::{KnownCustom, Name, NameSectionReader, Parser, Payload, Validator};
use wit_component::ComponentEncoder;

use super::super::limits::NAME_BYTES;
use super::super::meter::words;
use super::super::module::LoadError;
use super::super::symbols::collect;
use super::super::trap::{size, story};
use super::made::Parts;

/// The code of a component, or of the component that a core module is made into, and its debug
/// information; blocks.
pub(super) fn compile(
    runtime: &wasmtime::Engine,
    bytes: &[u8],
    max_memory: u64,
) -> Result<Parts, LoadError> {
    check_memory(bytes, max_memory)?;
    let adapted;
    let component = if Parser::is_component(bytes) {
        bytes
    } else {
        if !names_its_interface(bytes)? {
            return Err(LoadError::NoComponentType);
        }
        adapted = adapt(bytes)?;
        &adapted
    };
    check_names(component)?;
    let code = runtime.precompile_component(component).map_err(|error| {
        // The compiler validates too, on all of its threads. What it says of a module that nothing
        // is wrong with is about itself.
        match Validator::new().validate_all(component) {
            Err(invalid) => LoadError::Malformed(story(&invalid)),
            Ok(_) => LoadError::Compile(story(&error)),
        }
    })?;
    let debug = collect(component);
    Ok(Parts { code, debug })
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
            size(bytes),
            size(limit)
        )));
    }
    Ok(())
}

/// Holds the `name` sections to what they are for: wasmtime copies a function's name for each frame
/// of each backtrace, and has an entry in memory for each name, whether there is such a function or
/// not.
fn check_names(component: &[u8]) -> Result<(), LoadError> {
    let mut functions = Vec::new();
    for payload in Parser::new(0).parse_all(component).map_while(Result::ok) {
        match payload {
            Payload::Version { .. } => functions.push(0_usize),
            Payload::End(_) => _ = functions.pop(),
            Payload::ImportSection(imports) => {
                *functions.last_mut().unwrap_or(&mut 0) += imports.count() as usize;
            }
            Payload::FunctionSection(own) => {
                *functions.last_mut().unwrap_or(&mut 0) += own.count() as usize;
            }
            Payload::CustomSection(section) => {
                if let KnownCustom::Name(names) = section.as_known() {
                    let functions = functions.last().copied().unwrap_or(0);
                    check_section(names, functions).map_err(LoadError::NeedsTooMuch)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// What does not parse is passed over by wasmtime too.
fn check_section(names: NameSectionReader<'_>, functions: usize) -> Result<(), String> {
    let check = |name: &str| match name.len() {
        length if length <= NAME_BYTES => Ok(()),
        length => Err(format!(
            "a name of {length} bytes in its `name` section, where at most {NAME_BYTES} are allowed \
             (fixed): strip it"
        )),
    };
    for part in names.into_iter().map_while(Result::ok) {
        match part {
            Name::Module { name, .. } => check(name)?,
            Name::Function(map) if map.count() as usize > functions => {
                return Err(format!(
                    "names of {} functions, of which it has {functions}: strip it",
                    map.count()
                ));
            }
            Name::Function(map) => {
                let mut names = map.into_iter().map_while(Result::ok);
                names.try_for_each(|naming| check(naming.name))?;
            }
            _ => {}
        }
    }
    Ok(())
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
