//! `compile`: from a module's bytes to native code: all that reads a stranger's bytes at length.

use std::panic::catch_unwind;

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME as ADAPTER_NAME,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER as ADAPTER,
};
use wasmparser::{Parser, Payload, Validator};
use wit_component::ComponentEncoder;

use super::super::meter::words;
use super::super::module::LoadError;
use super::super::trap::story;

/// The code of a component, or of the component that a core module is made into; blocks.
pub(super) fn compile(runtime: &wasmtime::Engine, bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
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
    runtime.precompile_component(component).map_err(|error| {
        // The compiler validates too, on all of its threads. What it says of a module that nothing
        // is wrong with is about itself.
        match Validator::new().validate_all(component) {
            Err(invalid) => LoadError::Malformed(story(&invalid)),
            Ok(_) => LoadError::Compile(story(&error)),
        }
    })
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
