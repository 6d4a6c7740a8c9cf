//! Files that are nearly modules, or nearly artifacts.

use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use super::super::artifact::{Artifacts, Fingerprint};
use super::super::compile::Made;
use super::*;
use crate::fuzz;

/// A page as small as pages get, as a core module that names its interface.
fn page() -> Vec<u8> {
    let context = "i32 ".repeat(9);
    let text = format!(
        r#"(module
             (memory (export "memory") 1)
             (data (i32.const 64) "some data")
             (global $places (mut i32) (i32.const 0))
             (table 2 funcref)
             (elem (i32.const 0) $start)
             (func $start (global.set $places (i32.const 1)))
             (start $start)
             (func (export "wisr:page/page@0.1.0#static-props") (param {context}) (result i32) unreachable)
             (func (export "wisr:page/page@0.1.0#render") (param {context} i32 i32) (result i32) unreachable)
             (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8192)))"#
    );
    let mut core = wat::parse_str(text).unwrap();
    let mut wit = wit_parser::Resolve::default();
    let contract = concat!(env!("CARGO_MANIFEST_DIR"), "/guest-sdk/wit/page.wit");
    let package = wit.push_file(contract).unwrap();
    let world = wit.select_world(&[package], Some("static-page")).unwrap();
    embed_component_metadata(&mut core, &wit, world, StringEncoding::UTF8).unwrap();
    core
}

/// The page with one byte of its interface changed: `outcome` is another type than it is. The
/// encoder panics at it.
fn contradiction(core: &[u8]) -> Vec<u8> {
    let name = b"\x07outcome\x03\0";
    let place = core.windows(name.len()).position(|window| window == name);
    let mut changed = core.to_vec();
    changed[place.unwrap() + name.len()] = 5;
    changed
}

/// The sections that tell a core module's interface.
fn interfaces(bytes: &[u8]) -> Vec<&[u8]> {
    let payloads = wasmparser::Parser::new(0)
        .parse_all(bytes)
        .map_while(Result::ok);
    let sections = payloads.filter_map(|payload| match payload {
        wasmparser::Payload::CustomSection(section) => Some(section),
        _ => None,
    });
    let named = sections.filter(|section| section.name().starts_with("component-type"));
    named.map(|section| section.data()).collect()
}

/// Whatever lies in the folder of modules is served or refused, and refused for a reason of its
/// own: no panic stands behind it. Native code is never served.
#[test]
fn every_file_is_served_or_refused() {
    let engine = Engine::new(EngineConfig {
        fast_compile: true,
        ..config()
    })
    .unwrap();
    let core = page();
    let component = ComponentEncoder::default()
        .module(&core)
        .unwrap()
        .encode()
        .unwrap();
    let native = engine
        .runtime()
        .engine
        .precompile_component(&component)
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let seeds = vec![
        core.clone(),
        component.clone(),
        native[..native.len().min(4096)].to_vec(),
    ];
    for good in [&core, &component] {
        runtime.block_on(engine.load(good.clone())).unwrap();
    }
    let refused = runtime.block_on(engine.load(contradiction(&core)));
    assert!(
        matches!(refused, Err(LoadError::Malformed(_))),
        "{refused:?}"
    );
    let words: &[&[u8]] = &[
        b"\0asm",
        &[1, 0, 0, 0],
        &[13, 0, 1, 0],
        &[0xff; 5],
        &[0x80; 4],
        &[0x0b],
        &[0x60],
        b"wisr:page/page@0.1.0",
        b"component-type",
        &native[..64],
    ];
    let own = interfaces(&core).concat();
    fuzz::run("module", &fuzz::bytes(seeds, words), |bytes| {
        // The encoder follows packages that import each other in a circle until its stack is full:
        // interfaces of strangers are for a process that may end so.
        if interfaces(&bytes).iter().any(|interface| *interface != own) {
            return Ok(());
        }
        let is_wasm = [b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0"]
            .iter()
            .any(|head| bytes.starts_with(*head));
        match runtime.block_on(engine.load(bytes.clone())) {
            Ok(module) => {
                prop_assert!(is_wasm);
                prop_assert_eq!(module.digest(), Digest::of(&bytes));
                prop_assert!(module.role().exports().contains(&"page"));
            }
            Err(LoadError::NotWasm | LoadError::Precompiled) => prop_assert!(!is_wasm),
            Err(error) => {
                prop_assert!(is_wasm && !error.to_string().contains("panic"), "{}", error)
            }
        }
        Ok(())
    });
}

/// A changed artifact is not run: it is found neither under its own sum nor under a changed one.
#[test]
fn no_changed_artifact_is_run() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let artifacts = Artifacts::open(folder.path().to_owned()).unwrap();
    let name = Fingerprint::of(&engine().runtime().engine, b"component");
    let code = b"\x7fELF native code".repeat(8);
    let kept = |extension: &str| {
        let mut files = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|file| file.unwrap().path());
        files
            .find(|path| path.extension().is_some_and(|own| own == extension))
            .unwrap()
    };
    artifacts.keep(name, Made::of_code(&code));
    let sum = std::fs::read(kept("sum")).unwrap();
    let inputs = (
        fuzz::bytes(vec![code.clone()], &[b"\0"]),
        fuzz::bytes(vec![sum.clone()], &[b"\0"]),
    );
    fuzz::run("artifact", &inputs, |(changed, other)| {
        artifacts.keep(name, Made::of_code(&code));
        std::fs::write(kept("code"), &changed).unwrap();
        std::fs::write(kept("sum"), &other).unwrap();
        prop_assert_eq!(
            artifacts.find(name).is_some(),
            changed == code && other == sum
        );
        Ok(())
    });
}
