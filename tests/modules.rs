//! The modules that sites are made of: built once, then varied by changing bytes.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where the fixtures are built, beside wisr itself. Kept between runs.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fixtures")
}

/// Compiled artifacts are shared by all sites: otherwise every test would compile the puppet.
pub(crate) fn artifacts() -> PathBuf {
    folder().join("artifacts")
}

/// The universal page, as a component.
pub(crate) fn puppet() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| built("wasm32-wasip2", "puppet"))
}

/// The API route that knows nothing of wisr, as a component.
pub(crate) fn hook() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| built("wasm32-wasip2", "hook"))
}

/// The API route that has pages made anew, as a component.
pub(crate) fn caller() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| built("wasm32-wasip2", "caller"))
}

/// A server that was made for other hosts, as a component.
pub(crate) fn foreign() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| built("wasm32-wasip2", "foreign"))
}

/// The example site's API route, as a component.
pub(crate) fn example_hook() -> Vec<u8> {
    // The targets are there once the fixtures are built.
    hook();
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("example-pages/Cargo.toml");
    let output = tool("cargo")
        .args(["build", "--quiet", "--release", "--target", "wasm32-wasip2"])
        .args(["--package", "api-hook", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(folder())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "the example does not build:\n{said}"
    );
    std::fs::read(folder().join("wasm32-wasip2/release/api_hook.wasm")).unwrap()
}

/// The universal page as a core module that carries its component type.
pub(crate) fn puppet_core() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| built("wasm32-wasip1", "puppet"))
}

/// The hook with another version.
pub(crate) fn hook_version(version: u32) -> Vec<u8> {
    patched(hook(), version)
}

/// The puppet with another version: the module's digest and what it prints differ.
pub(crate) fn puppet_version(version: u32) -> Vec<u8> {
    patched(puppet(), version)
}

const MARKER: &[u8] = b"PUPPET-VERSION-0000";

/// `module` with its version's four digits overwritten.
pub(crate) fn patched(module: &[u8], version: u32) -> Vec<u8> {
    let mut bytes = module.to_vec();
    let digits = format!("{version:04}");
    assert_eq!(digits.len(), 4, "the marker has room for four digits");
    let places: Vec<usize> = (0..bytes.len() - MARKER.len())
        .filter(|at| bytes[*at..].starts_with(MARKER))
        .collect();
    assert!(!places.is_empty(), "the module does not carry {MARKER:?}");
    for at in places {
        let end = at + MARKER.len();
        bytes[end - 4..end].copy_from_slice(digits.as_bytes());
    }
    bytes
}

/// The puppet as a core module with a start function that traps, so that it fails when it is
/// instantiated and not before.
pub(crate) fn trapping_at_start() -> Vec<u8> {
    use wasmparser::{Parser, Payload};
    let core = puppet_core();
    let mut functions = 0;
    let mut empty_type = None;
    for payload in Parser::new(0).parse_all(core) {
        match payload.unwrap() {
            Payload::TypeSection(types) => {
                empty_type = types.into_iter_err_on_gc_types().position(|kind| {
                    let kind = kind.unwrap();
                    kind.params().is_empty() && kind.results().is_empty()
                });
            }
            Payload::ImportSection(imports) => {
                functions += imports
                    .into_imports()
                    .filter(|import| {
                        matches!(import.as_ref().unwrap().ty, wasmparser::TypeRef::Func(_))
                    })
                    .count();
            }
            Payload::FunctionSection(own) => functions += own.count() as usize,
            _ => {}
        }
    }
    let empty_type = empty_type.expect("every module has a function without parameters");
    let mut out = core[..8].to_vec();
    let mut rest = &core[8..];
    let mut started = false;
    while let Some((&id, after)) = rest.split_first() {
        let (size, length) = read_leb(after);
        let content = &after[length..length + size];
        rest = &after[length + size..];
        if !started && (id == 9 || id == 10 || id == 12) {
            put_section(&mut out, 8, &leb(functions));
            started = true;
        }
        match id {
            3 => put_section(&mut out, 3, &with_one_more(content, &leb(empty_type))),
            // A body of three bytes: no locals, `unreachable`, `end`.
            10 => put_section(&mut out, 10, &with_one_more(content, &[3, 0, 0x00, 0x0b])),
            other => put_section(&mut out, other, content),
        }
    }
    out
}

/// A vector of a section with `item` appended.
fn with_one_more(content: &[u8], item: &[u8]) -> Vec<u8> {
    let (count, length) = read_leb(content);
    [&leb(count + 1), &content[length..], item].concat()
}

pub(crate) fn put_section(out: &mut Vec<u8>, id: u8, content: &[u8]) {
    out.push(id);
    out.extend(leb(content.len()));
    out.extend_from_slice(content);
}

fn read_leb(bytes: &[u8]) -> (usize, usize) {
    let mut value = 0;
    for (position, byte) in bytes.iter().enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return (value, position + 1);
        }
    }
    panic!("a number that does not end");
}

pub(crate) fn leb(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A page of one Rust file without a library, with its debug information as the compiler makes it.
pub(crate) fn with_lines() -> Vec<u8> {
    // The targets are there once the fixtures are built.
    puppet_core();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::NamedTempFile::new().unwrap();
    let built = tool("rustc")
        .args([
            "--edition",
            "2024",
            "--target",
            "wasm32-wasip1",
            "--crate-type",
            "cdylib",
        ])
        .args(["-g", "-C", "opt-level=2", "-C", "panic=abort", "-o"])
        .args([out.path(), &root.join("tests/fixtures/lines/page.rs")])
        .current_dir(root)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "the page does not build:\n{said}");
    a_page("guest-sdk/wit/page.wit", std::fs::read(out.path()).unwrap())
}

/// A page by hand: `core` is the text of a core module's fields, which names itself a page.
pub(crate) fn by_hand(core: &str) -> Vec<u8> {
    of_contract("guest-sdk/wit/page.wit", core)
}

fn of_contract(contract: &str, core: &str) -> Vec<u8> {
    a_page(
        contract,
        wat::parse_str(format!("(module {core})")).unwrap(),
    )
}

/// A core module that names itself a page of this contract.
fn a_page(contract: &str, mut bytes: Vec<u8>) -> Vec<u8> {
    let mut wit = wit_parser::Resolve::default();
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join(contract);
    let package = wit.push_file(contract).unwrap();
    let world = wit.select_world(&[package], Some("static-page")).unwrap();
    let encoding = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut bytes, &wit, world, encoding).unwrap();
    bytes
}

/// A page by hand whose `static-props` returns the words of `props`, read as the contract lays them
/// out, and whose `render` is a good one. Its memory begins with `data`.
pub(crate) fn returning(data: &str, props: [u32; 8]) -> Vec<u8> {
    by_hand(&returning_beside("", data, props))
}

/// A good page by hand, with `core` in its core module.
pub(crate) fn good_beside(core: &str) -> Vec<u8> {
    by_hand(&returning_beside(core, "{}", [0, 0, 0, 2, 1, 0, 0, 0]))
}

/// The same by the contract as wisr 0.1.0 had it.
pub(crate) fn good_of_the_first_contract(core: &str) -> Vec<u8> {
    let page = returning_beside(core, "{}", [0, 0, 0, 2, 1, 0, 0, 0]);
    of_contract("tests/fixtures/page-0.1.0.wit", &page)
}

fn returning_beside(core: &str, data: &str, props: [u32; 8]) -> String {
    let words = |words: &[u32]| -> String {
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        bytes.map(|byte| format!("\\{byte:02x}")).collect()
    };
    // Above what any `data` takes: the result of each call, and what is allocated.
    let (first, second, free) = (1 << 18, (1 << 18) + 64, 1 << 19);
    let document = [0, 200, 0, 0, 0, 0, 0, 0];
    let (props, document) = (words(&props), words(&document));
    let context = "i32 ".repeat(9);
    format!(
        r#"{core}
           (memory (export "memory") 16)
           (data (i32.const 0) "{data}")
           (data (i32.const {first}) "{props}")
           (data (i32.const {second}) "{document}")
           (func (export "wisr:page/page@0.1.0#static-props") (param {context}) (result i32)
             (i32.const {first}))
           (func (export "wisr:page/page@0.1.0#render") (param {context} i32 i32) (result i32)
             (i32.const {second}))
           (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const {free}))"#
    )
}

/// A page that means well, with `core` in its core module and nothing that a page exports typed as
/// it should be: good only for what is refused before types are compared.
pub(crate) fn component(core: &str) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(component
             (core module $m (func (export "f")) {core})
             (core instance $i (instantiate $m))
             (func $f (canon lift (core func $i "f")))
             (instance $page (export "static-props" (func $f)) (export "render" (func $f)))
             (export "wisr:page/page@0.1.0" (instance $page)))"#
    ))
    .unwrap()
}

/// A small module whose values all depend on each other: compiling it takes gigabytes.
pub(crate) fn exploding() -> Vec<u8> {
    component(&explosion())
}

/// A function whose values all depend on each other.
pub(crate) fn explosion() -> String {
    let (locals, mut body) = (4_000, String::new());
    for step in 0..5_000 {
        let [a, b, c, d] = [1, 7, 3, 11].map(|factor| step * factor % locals);
        write!(
            body,
            "(block (br_if 0 (local.get {a}))
               (local.set {b} (i32.add (local.get {c}) (local.get {d}))))"
        )
        .unwrap();
    }
    let locals = "i32 ".repeat(locals);
    format!("(func (local {locals}) {body})")
}

/// A small module of loops within loops: compiling it takes minutes.
pub(crate) fn endless() -> Vec<u8> {
    let (locals, depth, mut body) = (2_000, 130, String::new());
    for step in 0..locals {
        let [a, b] = [3, 11].map(|factor| step * factor % locals);
        write!(
            body,
            "(local.set {step} (i32.add (local.get {a}) (local.get {b})))"
        )
        .unwrap();
    }
    let (open, close) = (
        "(loop ".repeat(depth),
        "(br_if 0 (local.get 0)))".repeat(depth),
    );
    let locals = "i32 ".repeat(locals);
    component(&format!("(func (local {locals}) {open} {body} {close})"))
}

/// Components within each other, so deep: who follows them by calling itself needs a stack without
/// end, and who keeps a note for each needs memory.
pub(crate) fn nested(depth: usize) -> Vec<u8> {
    const HEAD: &[u8] = b"\0asm\x0d\0\x01\0";
    // From the innermost one outwards: the length of each, then all of it from the outside in.
    let mut lengths = vec![HEAD.len()];
    for level in 0..depth {
        let inner = lengths[level];
        lengths.push(HEAD.len() + 1 + leb(inner).len() + inner);
    }
    let mut bytes = HEAD.to_vec();
    for inner in lengths[..depth].iter().rev() {
        // Section 4 is a component.
        bytes.push(4);
        bytes.extend(leb(*inner));
        bytes.extend(HEAD);
    }
    bytes
}

/// A core module that carries no component type.
pub(crate) fn bare_core() -> Vec<u8> {
    wat::parse_str("(module (func (export \"_initialize\")))").unwrap()
}

/// A valid component that is no page.
pub(crate) fn wrong_world() -> Vec<u8> {
    wat::parse_str("(component)").unwrap()
}

/// What an engine of wasmtime makes of a component: native code.
pub(crate) fn precompiled() -> Vec<u8> {
    wasmtime::Engine::default()
        .precompile_component(&wrong_world())
        .unwrap()
}

/// A module of the workspace in `tests/fixtures`, built on first use.
pub(crate) fn built(target: &str, name: &str) -> Vec<u8> {
    static BUILD: OnceLock<()> = OnceLock::new();
    BUILD.get_or_init(build);
    let path = folder()
        .join(target)
        .join("release")
        .join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn build() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/Cargo.toml");
    let attempt = || {
        tool("cargo")
            .args(["build", "--quiet", "--release", "--target", "wasm32-wasip2"])
            .args(["--target", "wasm32-wasip1", "--manifest-path"])
            .arg(&manifest)
            .arg("--target-dir")
            .arg(folder())
            .output()
            .expect("cargo runs these tests, so it is there")
    };
    let mut output = attempt();
    if String::from_utf8_lossy(&output.stderr).contains("rustup target add") {
        let targets = ["target", "add", "wasm32-wasip2", "wasm32-wasip1"];
        let _ = tool("rustup").args(targets).status();
        output = attempt();
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "the fixtures do not build:\n{said}"
    );
}

/// A tool without the settings of the build that these tests belong to.
fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    for (key, _) in std::env::vars() {
        let foreign = [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET",
            "RUSTC_WRAPPER",
        ];
        if foreign.contains(&key.as_str()) {
            command.env_remove(key);
        }
    }
    command
}

/// The module that traps at its start is valid: whoever refuses it has tried it.
#[test]
fn the_module_that_traps_at_its_start_is_valid() {
    wasmparser::validate(&trapping_at_start()).unwrap();
}
