//! The modules that sites are made of: built once, then varied by changing bytes.

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

fn put_section(out: &mut Vec<u8>, id: u8, content: &[u8]) {
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

fn leb(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
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
