//! `Place`: where code was running, and its telling as a [`Frame`] that the page's author knows.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wasmtime::{FrameInfo, WasmBacktrace};

use super::limits::{BACKTRACE_FRAMES, FRAME_BYTES, MESSAGE_BYTES};
use super::trap::clip;
use crate::page::Frame;

/// Where code was running, by what is known without debug information.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Place {
    /// The demangled function, or its index where the module has no names.
    function: String,
    /// Where in the component.
    pub(super) offset: Option<u64>,
}

/// What debug information says of a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Symbol {
    /// The demangled function.
    pub(super) name: Option<String>,
    /// `file:line`
    pub(super) place: Option<String>,
}

/// By offset, what debug information says, innermost first.
pub(super) type Symbols = HashMap<u64, Arc<[Symbol]>>;

/// Where the guest was, innermost first.
pub(super) fn places(error: &wasmtime::Error) -> Vec<Place> {
    let trace = error.downcast_ref::<WasmBacktrace>();
    let frames = trace.map_or(&[][..], WasmBacktrace::frames);
    frames.iter().map(Place::of).collect()
}

impl Place {
    fn of(info: &FrameInfo) -> Self {
        Self {
            function: match info.func_name() {
                Some(name) => demangle(name),
                None => format!("function {}", info.func_index()),
            },
            offset: info.module_offset().map(|offset| offset as u64),
        }
    }

    /// One frame for each function, inlined ones included where there is debug information.
    fn frames(&self, symbols: &Symbols) -> Vec<Frame> {
        let known = self.offset.and_then(|offset| symbols.get(&offset));
        match known.map(|symbols| &**symbols) {
            None | Some([]) => vec![Frame {
                function: self.function.clone(),
                location: None,
            }],
            Some(symbols) => symbols.iter().map(|symbol| self.frame(symbol)).collect(),
        }
    }

    fn frame(&self, symbol: &Symbol) -> Frame {
        let name = symbol.name.clone();
        Frame {
            function: name.unwrap_or_else(|| self.function.clone()),
            location: symbol.place.clone(),
        }
    }
}

/// What an author is told of where code was running.
pub(super) fn frames(places: &[Place], symbols: &Symbols) -> Vec<Frame> {
    let all: Vec<Frame> = places
        .iter()
        .flat_map(|place| place.frames(symbols))
        .collect();
    let own: Vec<Frame> = all
        .iter()
        .filter(|frame| !is_noise(frame))
        .cloned()
        .collect();
    let mut frames = fold(if own.is_empty() { all } else { own });
    // Functions that were inlined count too.
    frames.truncate(BACKTRACE_FRAMES);
    frames
}

/// The readable form of a Rust symbol, without its hash.
pub(super) fn demangle(symbol: &str) -> String {
    // A module may call its functions what it likes, at any length.
    match rustc_demangle::try_demangle(symbol) {
        Ok(name) if symbol.len() <= MESSAGE_BYTES => clip(&format!("{name:#}"), FRAME_BYTES),
        _ => clip(symbol, FRAME_BYTES),
    }
}

/// Frames that every panic, allocation and call goes through: of Rust's library, of libc, of the
/// bindings, of what the SDKs put around a page, and those without a name.
fn is_noise(frame: &Frame) -> bool {
    const PREFIXES: [&str; 18] = [
        "std::",
        "core::",
        "alloc::",
        "std[",
        "core[",
        "alloc[",
        "wit_bindgen",
        "wisr_guest::export::",
        "wisr_guest::bindings::",
        "wisr:page/",
        "rust_",
        "rustc",
        "wasm_",
        "export_",
        "exports_",
        "cabi_",
        "dlmalloc",
        "function ",
    ];
    const NAMES: [&str; 9] = [
        "abort",
        "assert_fail",
        "malloc",
        "calloc",
        "realloc",
        "free",
        "sbrk",
        "start",
        "wisr_fail_at",
    ];
    const PLACES: [&str; 3] = ["/rustc/", "wasisdk://", "/rustlib/src/"];
    let name = frame.function.trim_start_matches(['<', '&', '_']);
    let place = frame.location.as_deref().unwrap_or("");
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || NAMES.contains(&name)
        || PLACES.iter().any(|known| place.contains(known))
}

/// A recursion as one frame.
fn fold(frames: Vec<Frame>) -> Vec<Frame> {
    let same = |a: &Frame, b: &Frame| a.function == b.function && a.location == b.location;
    let runs = frames.chunk_by(same);
    runs.map(|run| match run {
        [one] => one.clone(),
        many => Frame {
            function: format!("{} ({} times)", many[0].function, many.len()),
            location: many[0].location.clone(),
        },
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authors_frames_are_told_from_the_rest() {
        let frame = |function: &str| Frame {
            function: demangle(function),
            location: None,
        };
        for noise in [
            "core::panicking::panic_fmt",
            "<alloc::vec::Vec<T> as core::clone::Clone>::clone",
            "_ZN3std9panicking20rust_panic_with_hook17h0123456789abcdefE",
            "__rust_start_panic",
            "__rustc[1]::rust_begin_unwind",
            "_export_render_cabi<x>",
            "dlmalloc::dlmalloc::Dlmalloc<A>::malloc",
            "malloc",
            "function 9",
            "__assert_fail",
            "exports_wisr_page_page_render",
            "<wisr_guest::export::Exported<P> as wisr_guest::bindings::Guest>::render",
            "wisr_guest::bindings::_export_render_cabi",
            "wisr:page/page@0.1.0#render",
        ] {
            assert!(is_noise(&frame(noise)), "{noise}");
        }
        for own in [
            "hostile::render",
            "<hostile::Page as wisr_guest::Page>::render",
            "corelib::x",
            "malloc_statistics",
        ] {
            assert!(!is_noise(&frame(own)), "{own}");
        }
    }
}
