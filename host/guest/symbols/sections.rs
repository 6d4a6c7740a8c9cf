//! `collect`: a module's debug information, put aside when it is compiled; and [`Section`], where
//! some of it is in that file.
//!
//! The file has a record for each core module that has debug information: where its code section
//! stands in the component, which is what backtraces count from, then the sections as they are.
//! It stands beside the module's native code.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use wasmparser::{Encoding, Parser, Payload};

/// What such a file begins with; the last byte is the format's version.
const MAGIC: [u8; 8] = *b"wisrdbg\x01";

/// The sections that are of use. A section's place here is its number in the file: new ones go to
/// the end.
const NAMES: [&str; 10] = [
    ".debug_abbrev",
    ".debug_addr",
    ".debug_info",
    ".debug_line",
    ".debug_line_str",
    ".debug_ranges",
    ".debug_rnglists",
    ".debug_str",
    ".debug_str_offsets",
    ".debug_types",
];

/// A record's first byte where it begins a module, in place of a section's number.
const MODULE: u8 = 0xff;

/// One section's place in the file.
#[derive(Debug, Clone)]
pub(super) struct Section {
    pub(super) name: &'static str,
    at: u64,
    length: u64,
}

/// A core module that has debug information.
#[derive(Debug, Clone)]
pub(super) struct Core {
    /// Where its code section stands in the component.
    pub(super) code: Range<u64>,
    pub(super) sections: Vec<Section>,
}

/// The debug information of a component that compiles; nothing where it has none. Takes as much as
/// the component's own sections, and a few bytes for each.
pub(in super::super) fn collect(component: &[u8]) -> Vec<u8> {
    let mut open: Vec<Found<'_>> = Vec::new();
    let mut file = Vec::new();
    for payload in Parser::new(0).parse_all(component).map_while(Result::ok) {
        match payload {
            Payload::Version { encoding, .. } => open.push(Found {
                is_core: encoding == Encoding::Module,
                ..Found::default()
            }),
            Payload::CodeSectionStart { range, .. } => {
                if let Some(found) = open.last_mut() {
                    found.code = range.start as u64..range.end as u64;
                }
            }
            Payload::CustomSection(section) => {
                let name = section.name().trim_end_matches(".dwo");
                if let Some(number) = NAMES.iter().position(|known| *known == name)
                    && let Some(found) = open.last_mut()
                {
                    found.sections.push((number, section.data()));
                }
            }
            Payload::End(_) => {
                if let Some(found) = open.pop().filter(Found::is_of_use) {
                    found.write(&mut file);
                }
            }
            _ => {}
        }
    }
    file
}

#[derive(Default)]
struct Found<'a> {
    is_core: bool,
    code: Range<u64>,
    sections: Vec<(usize, &'a [u8])>,
}

impl Found<'_> {
    fn is_of_use(&self) -> bool {
        self.is_core && !self.sections.is_empty() && !self.code.is_empty()
    }

    fn write(&self, file: &mut Vec<u8>) {
        if file.is_empty() {
            file.extend(MAGIC);
        }
        file.push(MODULE);
        file.extend(self.code.start.to_le_bytes());
        file.extend(self.code.end.to_le_bytes());
        for (number, data) in &self.sections {
            file.push(u8::try_from(*number).unwrap_or(MODULE));
            file.extend((data.len() as u64).to_le_bytes());
            file.extend(*data);
        }
    }
}

/// The core modules that have code at one of `wanted`. Reads nothing but what stands between the
/// sections.
pub(super) fn find(file: &File, base: u64, wanted: &[u64]) -> io::Result<Vec<Core>> {
    let number = |at: u64| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at)?;
        io::Result::Ok(u64::from_le_bytes(bytes))
    };
    let end = file.metadata()?.len();
    let broken = || io::Error::other("its file is damaged");
    let mut magic = [0; MAGIC.len()];
    file.read_exact_at(&mut magic, base)?;
    if magic != MAGIC {
        return Err(broken());
    }
    let (mut at, mut found) = (base + MAGIC.len() as u64, Vec::<Core>::new());
    let mut is_wanted = false;
    while at < end {
        let mut kind = [0];
        file.read_exact_at(&mut kind, at)?;
        let first = number(at + 1)?;
        if kind == [MODULE] {
            let code = first..number(at + 9)?;
            is_wanted = wanted.iter().any(|offset| code.contains(offset));
            if is_wanted {
                found.push(Core {
                    code,
                    sections: Vec::new(),
                });
            }
            at += 17;
            continue;
        }
        let name = NAMES.get(usize::from(kind[0])).ok_or_else(broken)?;
        let section = Section {
            name,
            at: at + 9,
            length: first,
        };
        at = section.at.checked_add(first).ok_or_else(broken)?;
        if at > end {
            return Err(broken());
        }
        if let Some(core) = found.last_mut().filter(|_| is_wanted) {
            core.sections.push(section);
        }
    }
    Ok(found)
}

impl Section {
    /// Its bytes.
    pub(super) fn read(&self, file: &File) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.length).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, self.at)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// What this version writes, byte by byte: a later one has to read it, or to give it another
    /// number.
    const KEPT: &[u8] =
        b"wisrdbg\x01\xff\x1e\0\0\0\0\0\0\0\x23\0\0\0\0\0\0\0\x02\x03\0\0\0\0\0\0\0abc";

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn what_was_kept_is_found() {
        let file = file(&[b"before", KEPT].concat());
        let found = find(&file, 6, &[7, 0x1f]).unwrap();
        assert_eq!((found.len(), &found[0].code), (1, &(0x1e..0x23)));
        let section = &found[0].sections[0];
        assert_eq!(
            (section.name, &*section.read(&file).unwrap()),
            (".debug_info", &b"abc"[..])
        );
        assert!(find(&file, 6, &[0x23]).unwrap().is_empty());
    }

    #[test]
    fn what_is_damaged_is_not_believed() {
        for length in 1..KEPT.len() {
            let cut = find(&file(&KEPT[..length]), 0, &[0x1f]);
            let is_whole =
                cut.is_ok_and(|cores| cores.iter().any(|core| !core.sections.is_empty()));
            assert!(!is_whole, "{length} bytes");
        }
        let mut later = KEPT.to_vec();
        later[7] = 2;
        assert!(find(&file(&later), 0, &[0x1f]).is_err());
    }

    #[test]
    fn each_core_module_keeps_its_own() {
        let component = wat::parse_str(
            "(component
               (core module (@custom \".debug_info\" \"a\") (func nop))
               (component (core module (func nop) (@custom \".debug_str\" \"b\")
                 (@custom \".debug_unknown\" \"c\")))
               (core module (func nop)))",
        )
        .unwrap();
        let kept = collect(&component);
        let all: Vec<u64> = (0..component.len() as u64).collect();
        let found = find(&file(&kept), 0, &all).unwrap();
        let names = found.iter().map(|core| core.sections[0].name);
        assert_eq!(
            names.collect::<Vec<_>>(),
            [".debug_info", ".debug_str"],
            "{found:?}"
        );
        assert!(collect(&wat::parse_str("(component)").unwrap()).is_empty());
    }
}
