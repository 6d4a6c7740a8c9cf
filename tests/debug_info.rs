//! Debug information as no compiler makes it: it costs neither the server nor anybody's pages, and
//! the failure is told all the same.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::modules::{self, leb, put_section};
use crate::site::{Running, Site, wisr};

/// Sections by name.
pub(crate) type Sections = Vec<(&'static str, Vec<u8>)>;

/// A page by hand with a function that traps, called when the page is made.
pub(crate) fn trapping() -> Vec<u8> {
    let context = "i32 ".repeat(9);
    modules::by_hand(&format!(
        r#"(memory (export "memory") 1)
           (func $boom unreachable)
           (func (export "wisr:page/page@0.1.0#static-props") (param {context}) (result i32)
             (call $boom) (i32.const 0))
           (func (export "wisr:page/page@0.1.0#render") (param {context} i32 i32) (result i32)
             (i32.const 0))
           (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0))"#
    ))
}

/// The same, called when the module starts.
pub(crate) fn trapping_at_start() -> Vec<u8> {
    modules::good_beside("(start $boom) (func $boom unreachable)")
}

/// `core`, a core module, with more sections.
pub(crate) fn with(core: &[u8], sections: &Sections) -> Vec<u8> {
    let mut out = core.to_vec();
    for (name, data) in sections {
        let content = [&leb(name.len()), name.as_bytes(), data].concat();
        put_section(&mut out, 0, &content);
    }
    out
}

/// A form of debug information, and the words of the incident that say why there are no lines; none
/// where it can be read.
pub(crate) struct Form {
    pub(crate) name: &'static str,
    pub(crate) make: fn() -> Sections,
    pub(crate) words: &'static str,
}

const DEEP: &str = "within each other too deeply";
const MUCH: &str = "more than 256 MiB of memory";
const NONSENSE: &str = "it is malformed";

/// Every hostile form that is known. Together they are some 25 MB.
#[rustfmt::skip]
pub(crate) const FORMS: [Form; 12] = [
    Form { name: "nested", make: || nested(5_000), words: "" },
    Form { name: "abyss", make: || nested(200_000), words: DEEP },
    Form { name: "lines", make: || lines(20 << 20), words: MUCH },
    Form { name: "files", make: || files(30_000, 65_000), words: MUCH },
    Form { name: "names", make: || named(500, 100 << 10), words: "" },
    Form { name: "cycle", make: cycle, words: "" },
    Form { name: "beyond", make: beyond, words: "" },
    Form { name: "elsewhere", make: elsewhere, words: "" },
    Form { name: "five", make: five, words: "" },
    Form { name: "noise", make: noise, words: NONSENSE },
    Form { name: "cut", make: || cut(nested(100)), words: NONSENSE },
    Form { name: "many", make: || many(100_000), words: "" },
];

/// All addresses that there are, nearly.
const ALL: u32 = 0x7fff_fff0;

/// Abbreviations by the number that begins each entry.
const ABBREVIATIONS: &[&[u8]] = &[
    // 1: a unit with its range. DW_TAG_compile_unit, with children: DW_AT_low_pc as DW_FORM_addr,
    // DW_AT_high_pc as DW_FORM_data4.
    &[1, 0x11, 1, 0x11, 0x01, 0x12, 0x06, 0, 0],
    // 2: an abstract function: DW_AT_name as DW_FORM_strp, DW_AT_inline as DW_FORM_data1.
    &[2, 0x2e, 0, 0x03, 0x0e, 0x20, 0x0b, 0, 0],
    // 3: a function with its range, of an abstract one: DW_AT_abstract_origin as DW_FORM_ref4.
    &[3, 0x2e, 1, 0x31, 0x13, 0x11, 0x01, 0x12, 0x06, 0, 0],
    // 4: the same inlined.
    &[4, 0x1d, 1, 0x31, 0x13, 0x11, 0x01, 0x12, 0x06, 0, 0],
    // 5: an abstract function of an abstract function.
    &[5, 0x2e, 0, 0x31, 0x13, 0, 0],
    // 6: a unit with its range and lines: DW_AT_stmt_list as DW_FORM_sec_offset.
    &[6, 0x11, 1, 0x11, 0x01, 0x12, 0x06, 0x10, 0x17, 0, 0],
    // 7: a function with its range whose name is in another file: DW_FORM_GNU_strp_alt, and whose
    // origin is, too: DW_FORM_GNU_ref_alt.
    &[
        7, 0x2e, 0, 0x03, 0xa1, 0x3e, 0x31, 0xa0, 0x3e, 0x11, 0x01, 0x12, 0x06, 0, 0,
    ],
];

/// One unit of DWARF 4 with these entries.
fn unit(entries: &[u8]) -> Vec<u8> {
    let length = u32::try_from(entries.len() + 7).unwrap();
    // Version, abbreviations from 0, addresses of 4 bytes.
    let head = [4, 0, 0, 0, 0, 0, 4];
    [&length.to_le_bytes()[..], &head, entries].concat()
}

/// Where the first entry of a unit is.
const FIRST: u32 = 11;

fn sections(info: Vec<u8>, names: &[u8]) -> Sections {
    let abbreviations = [&ABBREVIATIONS.concat()[..], &[0]].concat();
    vec![
        (".debug_abbrev", abbreviations),
        (".debug_info", info),
        (".debug_str", names.to_vec()),
    ]
}

/// An entry of the abbreviation `code` that has all addresses.
fn everywhere(code: u8, origin: Option<u32>) -> Vec<u8> {
    let origin = origin.map_or(Vec::new(), |origin| origin.to_le_bytes().to_vec());
    [&[code][..], &origin, &[0; 4], &ALL.to_le_bytes()].concat()
}

/// A function with `depth` others inlined into each other in it, all of one long name.
fn named(depth: usize, length: usize) -> Sections {
    let mut entries = everywhere(1, None);
    let origin = FIRST + u32::try_from(entries.len()).unwrap();
    entries.extend([2, 0, 0, 0, 0, 1]);
    entries.extend(everywhere(3, Some(origin)));
    entries.extend(everywhere(4, Some(origin)).repeat(depth));
    // The end of each, of the function and of the unit.
    entries.extend(vec![0; depth + 2]);
    let name = [&vec![b'x'; length][..], &[0]].concat();
    sections(unit(&entries), &name)
}

fn nested(depth: usize) -> Sections {
    named(depth, 6)
}

/// `count` functions at the same place.
fn many(count: usize) -> Sections {
    let mut entries = everywhere(1, None);
    let origin = FIRST + u32::try_from(entries.len()).unwrap();
    entries.extend([2, 0, 0, 0, 0, 1]);
    let function = [&everywhere(3, Some(origin))[..], &[0]].concat();
    entries.extend(function.repeat(count));
    entries.push(0);
    sections(unit(&entries), b"again\0")
}

/// Functions that are of each other.
fn cycle() -> Sections {
    let mut entries = everywhere(1, None);
    let one = FIRST + u32::try_from(entries.len()).unwrap();
    let other = one + 5;
    entries.extend([&[5][..], &other.to_le_bytes()].concat());
    entries.extend([&[5][..], &one.to_le_bytes()].concat());
    entries.extend(everywhere(3, Some(one)));
    entries.extend([0, 0]);
    sections(unit(&entries), b"")
}

/// Names and origins beyond the end of everything.
fn beyond() -> Sections {
    let mut entries = everywhere(1, None);
    let origin = FIRST + u32::try_from(entries.len()).unwrap();
    entries.extend([2, 0xff, 0xff, 0xff, 0x7f, 1]);
    entries.extend(everywhere(3, Some(origin)));
    entries.extend(everywhere(4, Some(0x7fff_ffff)));
    entries.extend([0, 0, 0]);
    sections(unit(&entries), b"short\0")
}

/// What is in a file beside this one, which there is not.
fn elsewhere() -> Sections {
    let mut entries = everywhere(1, None);
    entries.extend([7, 0xff, 0, 0, 0, 0xff, 0, 0, 0]);
    entries.extend(&everywhere(7, None)[1..]);
    entries.push(0);
    let mut all = sections(unit(&entries), b"");
    all.push((".debug_str_sup", vec![b'x'; 1 << 10]));
    all.push((".gnu_debugaltlink", b"/etc/passwd\0".to_vec()));
    all
}

/// A unit of DWARF 5 whose lists of ranges, addresses and names are not there.
fn five() -> Sections {
    // DW_AT_ranges as DW_FORM_rnglistx, DW_AT_name as DW_FORM_strx, DW_AT_low_pc as DW_FORM_addrx.
    let abbreviations = vec![1, 0x11, 0, 0x55, 0x23, 0x03, 0x1a, 0x11, 0x1b, 0, 0, 0];
    let entry = [1, 0xff, 0xff, 0xff, 0x7f, 0xff, 0x7f, 0xff, 0x7f];
    let head = [5, 0, 1, 4, 0, 0, 0, 0];
    let length = u32::try_from(head.len() + entry.len()).unwrap();
    let info = [&length.to_le_bytes()[..], &head, &entry].concat();
    vec![
        (".debug_abbrev", abbreviations),
        (".debug_info", info),
        (".debug_rnglists", vec![0xff; 64]),
        (".debug_str_offsets", vec![0xff; 64]),
        (".debug_line_str", vec![0xff; 64]),
    ]
}

/// Bytes by chance in all sections.
fn noise() -> Sections {
    let mut state = 7_u32;
    let mut bytes = || {
        (0..10_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect::<Vec<u8>>()
    };
    [
        ".debug_abbrev",
        ".debug_info",
        ".debug_line",
        ".debug_str",
        ".debug_ranges",
        ".debug_rnglists",
    ]
    .map(|name| (name, bytes()))
    .into()
}

/// Sections that end in the middle.
fn cut(sections: Sections) -> Sections {
    let half = |(name, mut data): (&'static str, Vec<u8>)| {
        data.truncate(data.len() / 2);
        (name, data)
    };
    sections.into_iter().map(half).collect()
}

/// A unit whose lines are those of `program`, and these directories and files.
fn lined(tables: &[u8], program: &[u8]) -> Sections {
    let entries = [&everywhere(6, None)[..], &[0; 4], &[0]].concat();
    // Instructions of 1 byte, one each, all statements; lines from -5 on, 14 of them; 13 opcodes.
    let head = [
        &[1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1][..],
        tables,
    ]
    .concat();
    let length = u32::try_from(2 + 4 + head.len() + program.len()).unwrap();
    let lines = [
        &length.to_le_bytes()[..],
        &[4, 0],
        &u32::try_from(head.len()).unwrap().to_le_bytes(),
        &head,
        program,
    ]
    .concat();
    let mut all = sections(unit(&entries), b"");
    all.push((".debug_line", lines));
    all
}

/// So many rows of lines, a byte each.
fn lines(count: usize) -> Sections {
    let mut program = vec![0x21; count];
    // The end of the sequence, without which none of it counts.
    program.extend([0, 1, 1]);
    lined(b"\0a.c\0\0\0\0\0", &program)
}

/// So many files, in a directory whose name has so many bytes.
fn files(count: usize, length: usize) -> Sections {
    let mut tables = vec![b'd'; length];
    tables.extend([0, 0]);
    for number in 0..count {
        tables.extend(format!("{number}.c\0").bytes());
        // In the first directory; its time and size are not known.
        tables.extend([1, 0, 0]);
    }
    tables.push(0);
    lined(&tables, &[0x21, 0x21, 0, 1, 1])
}

/// The most memory that a server had while something was done.
async fn peak_while<T>(site: &Running, work: impl Future<Output = T>) -> (T, u64) {
    let peak = AtomicU64::new(0);
    let watch = async {
        loop {
            peak.fetch_max(site.resident(), Ordering::Relaxed);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let done = tokio::select! {
        done = work => done,
        () = watch => unreachable!(),
    };
    (done, peak.into_inner())
}

/// Where a page failed is told by its author's files and lines at the first failure, inlined functions
/// included; so it is after a restart, which reads what was kept.
#[tokio::test]
async fn a_failure_is_told_by_the_authors_files_and_lines() {
    let site = Site::new().module("posts/[id]", &modules::with_lines());
    let mut site = site.config(OWN).start().await;
    for path in ["/posts/1", "/posts/2"] {
        assert_eq!(site.get(path).await.status, 500);
        let incident = site.until_incident("trap", path).await;
        let frames = &incident["failure"]["frames"];
        for (number, function, line) in [(0, "page::inlined", 14), (1, "page::called", 19)] {
            let frame = &frames[number];
            assert_eq!(frame["function"], function, "{incident:#}");
            let place = frame["location"].as_str().unwrap();
            assert!(place.ends_with(&format!("lines/page.rs:{line}")), "{place}");
        }
        site.restart().await;
    }
}

/// The artifacts of these modules are of no use to others.
const OWN: &str = "[server]\nartifacts = \".wisr/artifacts\"";

/// Pages that fail in modules with hostile debug information, all at once: the server lives and
/// stays small, each failure is told with the function's name and the reason why there are no lines,
/// pages of other routes are made meanwhile, and the next start is none the wiser.
#[tokio::test]
async fn hostile_debug_information_costs_its_own_lines_only() {
    let mut site = Site::new().pages(&["posts/[id]"]).config(OWN);
    for form in &FORMS {
        let module = with(&trapping(), &(form.make)());
        site = site.module(form.name, &module);
    }
    let mut site = site.start().await;
    for again in [false, true] {
        let before = site.resident();
        let (_, peak) = peak_while(&site, fail_all(&site, again)).await;
        assert!(
            peak < before + (96 << 20),
            "from {before} to {peak} bytes of memory"
        );
        if !again {
            site.restart().await;
        }
    }
}

async fn fail_all(site: &Running, again: bool) {
    let failing = FORMS.iter().map(|form| async move {
        let path = format!("/{}", form.name);
        assert_eq!(site.get(&path).await.status, 500, "{path}");
        check(site, form, &path).await;
    });
    let failing = futures_util::future::join_all(failing);
    let neighbour = async {
        for number in 0..20 {
            let path = format!("/posts/{number}{again}");
            assert_eq!(site.get(&path).await.status, 200, "{path}");
        }
    };
    tokio::join!(failing, neighbour);
}

async fn check(site: &Running, form: &Form, path: &str) {
    let incident = site.until_incident("trap", path).await;
    let failure = &incident["failure"];
    let (message, frames) = (&failure["message"], failure["frames"].as_array().unwrap());
    let message = message.as_str().unwrap();
    assert!(!frames.is_empty() && frames.len() <= 32, "{incident:#}");
    assert!(incident.to_string().len() < 64 << 10, "{incident:#}");
    // Of those that are read one after the other, the last may not be in time; the next is.
    if message.contains("which is how long a failure waits for it") {
        return;
    }
    let told = message.contains("debug information was not read");
    assert_eq!(told, !form.words.is_empty(), "{}: {incident:#}", form.name);
    assert!(message.contains(form.words), "{}: {incident:#}", form.name);
    if told {
        assert_eq!(frames[0]["function"], "boom", "{incident:#}");
    }
}

/// A start that fails is a refusal, with hostile debug information as without: of the file dropped
/// into a running server, of the next start, and of `wisr check`.
#[tokio::test]
async fn a_start_that_fails_is_refused_whatever_its_debug_information() {
    let mut site = Site::new().pages(&["posts/[id]"]).config(OWN).start().await;
    let forms = || FORMS.iter().filter(|form| form.name != "lines");
    for form in forms() {
        let module = with(&trapping_at_start(), &(form.make)());
        site.swap(&format!("start/{}", form.name), &module);
    }
    let refused = async |site: &Running| -> Vec<Value> {
        let mut all = Vec::new();
        for form in forms() {
            let file = format!("start/{}.wasm", form.name);
            let incident = site.until_incident("module", &file).await;
            let message = incident["message"].as_str().unwrap().to_owned();
            assert!(message.contains("it does not start"), "{message}");
            all.push(incident);
        }
        all
    };
    refused(&site).await;
    assert_eq!(site.get("/posts/1").await.status, 200);
    site.restart().await;
    refused(&site).await;
    assert_eq!(site.get("/posts/2").await.status, 200);
    for form in forms() {
        let file = format!("pages/start/{}.wasm", form.name);
        let told = wisr(site.folder(), &["check", &file]).await;
        assert_eq!(told.code, Some(1), "{told:?}");
        assert!(told.stderr.contains("it does not start"), "{told:?}");
    }
}
