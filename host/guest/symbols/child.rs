//! `run`: the life of a child that reads debug information: a module's sections on stdin, what is
//! asked of them in its order, and what they say of it on stdout.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::str::FromStr;
use std::thread;

use gimli::{EndianSlice, LittleEndian};
use serde::{Deserialize, Serialize};

use super::super::child::Confinement;
use super::super::frames::{Symbol, demangle};
use super::super::limits::FRAME_BYTES;
use super::super::trap::clip;
use super::sections::{self, Core};
use super::{SYMBOLS, SYMBOLS_EACH};

/// What a child is told on its command line, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SymbolOrder {
    pub(super) confinement: Confinement,
    /// Where in its input the debug information begins.
    pub(super) base: u64,
    /// Where in the component code was running.
    pub(super) offsets: Vec<u64>,
}

impl FromStr for SymbolOrder {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

/// The exit code of a child that found the sections to be wrong.
pub(super) const MALFORMED: u8 = 10;

/// Bytes of the stack on which the sections are read: entries may lie within each other, and a few
/// hundred deep is more than any compiler made.
const STACK: usize = 32 << 20;

/// Reads what it is asked for, within its bounds.
pub fn run(order: &SymbolOrder) -> ExitCode {
    match order.confinement.enter() {
        Ok(true) => {}
        Ok(false) => return ExitCode::FAILURE,
        Err(error) => return fail(ExitCode::FAILURE, &error.to_string()),
    }
    let input = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(input) => File::from(input),
        Err(error) => return fail(ExitCode::FAILURE, &error.to_string()),
    };
    let (base, offsets) = (order.base, order.offsets.clone());
    let reading = thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || look_up(&input, base, &offsets));
    let read = match reading {
        Ok(reading) => reading.join(),
        Err(error) => return fail(ExitCode::FAILURE, &error.to_string()),
    };
    // A panic has said its words.
    let Ok(found) = read else {
        return ExitCode::FAILURE;
    };
    match found {
        Err(error) => fail(ExitCode::from(MALFORMED), &error.to_string()),
        Ok(found) => match serde_json::to_vec(&found).map(|json| io::stdout().write_all(&json)) {
            Ok(Ok(())) => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        },
    }
}

fn fail(code: ExitCode, words: &str) -> ExitCode {
    // Whoever reads this waits for the exit code anyway.
    let _ = io::stderr().write_all(words.as_bytes());
    code
}

/// What debug information says of each offset, innermost first: more than one where functions were
/// inlined.
pub(super) fn look_up(file: &File, base: u64, offsets: &[u64]) -> io::Result<Vec<Vec<Symbol>>> {
    let mut all = vec![Vec::new(); offsets.len()];
    let mut left = SYMBOLS;
    for core in sections::find(file, base, offsets)? {
        look_into(&core, file, offsets, &mut all, &mut left)?;
    }
    Ok(all)
}

fn look_into(
    core: &Core,
    file: &File,
    offsets: &[u64],
    all: &mut [Vec<Symbol>],
    left: &mut usize,
) -> io::Result<()> {
    let mut held = Vec::new();
    for section in &core.sections {
        held.push((section.name, section.read(file)?));
    }
    let dwarf = gimli::Dwarf::load(|id| {
        // Of two with a name the later one counts, as with wasmtime.
        let section = held.iter().rev().find(|(name, _)| *name == id.name());
        let bytes = section.map_or(&[][..], |(_, bytes)| bytes);
        Ok::<_, gimli::Error>(EndianSlice::new(bytes, LittleEndian))
    });
    let context = dwarf.and_then(addr2line::Context::from_dwarf);
    let context = context.map_err(io::Error::other)?;
    for (offset, symbols) in offsets.iter().zip(all) {
        if !core.code.contains(offset) {
            continue;
        }
        let found = context.find_frames(offset - core.code.start);
        // One place that cannot be read is no reason not to read the others.
        let Ok(mut frames) = found.skip_all_loads() else {
            continue;
        };
        while *left > 0
            && symbols.len() < SYMBOLS_EACH
            && let Ok(Some(frame)) = frames.next()
        {
            let name = frame
                .function
                .as_ref()
                .and_then(|name| name.raw_name().ok());
            symbols.push(Symbol {
                name: name.map(|name| demangle(&name)),
                place: frame.location.as_ref().and_then(place),
            });
            *left -= 1;
        }
    }
    Ok(())
}

fn place(location: &addr2line::Location<'_>) -> Option<String> {
    let file = clip(location.file?.trim_start_matches("./"), FRAME_BYTES);
    Some(match location.line {
        Some(line) => format!("{file}:{line}"),
        None => file,
    })
}
