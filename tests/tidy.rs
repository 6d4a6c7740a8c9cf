//! The house rules of the design's section 10, held as tests; each checker is shown a broken sample.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Production lines of a file, at most: what one reading holds.
const FILE_LINES: usize = 500;

/// Half of the files are no longer than this.
const MEDIAN_LINES: usize = 150;

/// Lines of a function, at most: what one screen shows.
const FUNCTION_LINES: usize = 70;

/// The rooms by floor; what is not listed is the top floor, assembly.
const FLOORS: [(&str, usize); 10] = [
    ("page", 0),
    ("route", 0),
    ("telemetry", 0),
    ("cores", 0),
    ("guest", 1),
    ("store", 1),
    ("isr", 2),
    ("release", 2),
    ("http", 3),
    ("admin", 3),
];

/// Imports that stay on one floor, each with the reason why it is no knot.
const SIDEWAYS: [(&str, &str, &str); 3] = [
    (
        "telemetry",
        "page",
        "incidents are about failures and times, which are words of page",
    ),
    ("route", "page", "a match yields page keys and parameters"),
    ("admin", "http", "both doors listen and answer alike"),
];

/// Rooms that are not allowed below although the floors would let them.
const FORBIDDEN: [(&str, &str, &str); 4] = [
    ("isr", "guest", "the cache has never heard of wasm"),
    ("isr", "route", "the cache knows keys, not patterns"),
    (
        "release",
        "store",
        "a release is about modules, not entries",
    ),
    ("store", "route", "the store knows keys, not patterns"),
];

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The first folder or file below `host/`, without its extension.
    fn room(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("host/")?;
        Some(inside.split('/').next()?.trim_end_matches(".rs"))
    }

    fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or("");
        self.path.starts_with("tests/")
            || ["tests.rs", "fuzz.rs"].contains(&name)
            || name.ends_with("_tests.rs")
            || name.ends_with("_fuzz.rs")
            || self.path.contains("/tests/")
    }

    /// The lines before the tests at the end of the file.
    fn production(&self) -> Vec<&str> {
        let lines: Vec<&str> = self.text.lines().collect();
        let tests = lines.windows(2).position(|pair| {
            pair[0].trim() == "#[cfg(test)]"
                && pair[1].starts_with("mod ")
                && pair[1].ends_with('{')
        });
        lines[..tests.unwrap_or(lines.len())].to_vec()
    }

    /// Production lines without comments, and without what stands in string literals.
    fn code(&self) -> Vec<String> {
        let lines = self.production();
        let code = lines
            .iter()
            .filter(|line| !line.trim_start().starts_with("//"));
        code.map(|line| without_strings(line)).collect()
    }
}

/// A line with its string literals emptied and its trailing comment cut.
fn without_strings(line: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\\' if inside => drop(chars.next()),
            '"' => {
                inside = !inside;
                out.push('"');
            }
            '\'' if !inside && chars.peek() == Some(&'"') => drop(chars.next()),
            '/' if !inside && chars.peek() == Some(&'/') => break,
            other if !inside => out.push(other),
            _ => {}
        }
    }
    out
}

/// All sources that the rules are about.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["host", "guest-sdk/src", "tests"] {
        collect(&root.join(folder), &mut files);
    }
    files.sort();
    let read = |path: PathBuf| Source {
        text: std::fs::read_to_string(&path).unwrap(),
        path: path
            .strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned(),
    };
    files.into_iter().map(read).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Runs a rule over every file that it is about and shows all that break it.
#[track_caller]
fn hold(about: impl Fn(&Source) -> bool, rule: impl Fn(&Source) -> Vec<String>) {
    let broken: Vec<String> = sources()
        .iter()
        .filter(|source| about(source))
        .flat_map(|source| {
            rule(source)
                .into_iter()
                .map(|what| format!("{}: {what}", source.path))
        })
        .collect();
    assert!(
        broken.is_empty(),
        "house rules are broken:\n{}",
        broken.join("\n")
    );
}

fn sample(path: &str, text: &str) -> Source {
    Source {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

fn opening(source: &Source) -> Vec<String> {
    let first = source.text.lines().next().unwrap_or("");
    let generated =
        source.text.contains("@generated") || source.text.starts_with("// Generated by");
    match first.strip_prefix("//! ") {
        Some(says) if says.len() > 10 => Vec::new(),
        _ if generated => Vec::new(),
        _ => vec![format!(
            "opens with {first:?}, not with `//!` and its central noun"
        )],
    }
}

/// Every file opens with `//!` naming its central noun.
#[test]
fn every_file_says_what_it_is_about() {
    assert_eq!(opening(&sample("host/x.rs", "use std::fmt;\n")).len(), 1);
    assert_eq!(opening(&sample("host/x.rs", "//! x\n")).len(), 1);
    assert!(opening(&sample("host/x.rs", "//! `Thing`: why it is there.\n")).is_empty());
    hold(|_| true, opening);
}

fn length(source: &Source) -> Vec<String> {
    let lines = source.production().len();
    if lines > FILE_LINES {
        vec![format!("{lines} production lines, {FILE_LINES} at most")]
    } else {
        Vec::new()
    }
}

/// The production part of a file has 500 lines at most.
#[test]
fn no_file_is_too_long() {
    assert_eq!(length(&sample("host/x.rs", &"x\n".repeat(501))).len(), 1);
    let tested = format!(
        "{}#[cfg(test)]\nmod tests {{\n{}}}\n",
        "x\n".repeat(500),
        "x\n".repeat(99)
    );
    assert!(length(&sample("host/x.rs", &tested)).is_empty());
    let early = format!("#[cfg(test)]\nmod tests;\n{}", "x\n".repeat(500));
    assert_eq!(
        length(&sample("host/x.rs", &early)).len(),
        1,
        "a test module elsewhere hides nothing"
    );
    hold(
        |source| !source.is_test() && !source.path.ends_with("bindings.rs"),
        length,
    );
}

fn median(mut lengths: Vec<usize>) -> usize {
    lengths.sort_unstable();
    lengths[lengths.len() / 2]
}

/// Half of the files have 150 lines at most.
#[test]
fn most_files_are_short() {
    assert_eq!(median(vec![1, 900, 2]), 2);
    let host = sources()
        .into_iter()
        .filter(|source| source.room().is_some() && !source.is_test());
    let median = median(host.map(|source| source.production().len()).collect());
    assert!(
        median <= MEDIAN_LINES,
        "the median of host/ is {median} lines, {MEDIAN_LINES} at most"
    );
}

fn functions(source: &Source) -> Vec<String> {
    let lines = source.production();
    let mut long = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let closing = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
        let closed = |end: &&str| end.trim_end() == closing;
        let end = match line.trim_end().ends_with(['}', ';']) {
            true => 0,
            false => lines[start..]
                .iter()
                .position(closed)
                .unwrap_or(lines.len() - start),
        };
        if end + 1 > FUNCTION_LINES {
            long.push(format!(
                "fn {name} has {} lines, {FUNCTION_LINES} at most",
                end + 1
            ));
        }
    }
    long
}

/// The name of the function that begins in this line.
fn function_name(line: &str) -> Option<&str> {
    let before_name = line.find("fn ")?;
    let modifiers = line[..before_name].split_whitespace();
    let known = ["const", "async", "unsafe", "extern", "\"C\""];
    let plain =
        |word: &str| known.contains(&word) || word.starts_with("pub") || word.ends_with(')');
    if !modifiers.into_iter().all(plain) {
        return None;
    }
    line[before_name + 3..]
        .split(['(', '<'])
        .next()
        .filter(|name| !name.is_empty())
}

/// A function fits a screen.
#[test]
fn no_function_is_too_long() {
    let of = |count: usize| {
        format!(
            "impl X {{\n    pub(crate) async fn long() {{\n{}    }}\n}}\n",
            "        x;\n".repeat(count)
        )
    };
    assert_eq!(functions(&sample("host/x.rs", &of(69))).len(), 1);
    assert!(functions(&sample("host/x.rs", &of(68))).is_empty());
    assert_eq!(function_name("    pub const fn a<T>(x: T) {"), Some("a"));
    assert_eq!(function_name("    let f: fn (u8) = g;"), None);
    hold(|source| !source.path.ends_with("bindings.rs"), functions);
}

/// The rooms that a file names, by `crate::room` or inside `crate::{…}`.
fn rooms_used(source: &Source) -> Vec<String> {
    let code = source.code().join("\n");
    let mut rooms = Vec::new();
    for after in code.split("crate::").skip(1) {
        if let Some(group) = after.strip_prefix('{') {
            let mut depth = 0;
            let mut item = String::new();
            for char in group.chars() {
                match char {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => rooms.push(std::mem::take(&mut item)),
                    _ if depth == 0 => item.push(char),
                    _ => {}
                }
            }
            rooms.push(item);
        } else {
            rooms.push(after.to_owned());
        }
    }
    let name = |text: String| -> String {
        let text = text.trim_start();
        text.chars()
            .take_while(|char| char.is_alphanumeric() || *char == '_')
            .collect()
    };
    rooms
        .into_iter()
        .map(name)
        .filter(|name| !name.is_empty())
        .collect()
}

fn floor(room: &str) -> usize {
    FLOORS
        .iter()
        .find(|(name, _)| *name == room)
        .map_or(4, |(_, floor)| *floor)
}

fn upward(source: &Source) -> Vec<String> {
    let Some(room) = source.room().filter(|room| !["lib", "main"].contains(room)) else {
        return Vec::new();
    };
    let mut broken = Vec::new();
    for used in rooms_used(source) {
        let listed = SIDEWAYS
            .iter()
            .any(|(from, to, _)| (*from, *to) == (room, used.as_str()));
        let forbidden = FORBIDDEN
            .iter()
            .find(|(from, to, _)| (*from, *to) == (room, used.as_str()));
        // The rooms of the top floor know each other: together they are the assembly.
        let top = floor(room) == 4;
        if let Some((_, _, reason)) = forbidden {
            broken.push(format!("{room} imports {used}: {reason}"));
        } else if used != room && !listed && !top && floor(&used) >= floor(room) {
            broken.push(format!(
                "{room} (floor {}) imports {used} (floor {})",
                floor(room),
                floor(&used)
            ));
        }
    }
    broken
}

/// A file imports from floors below it or from its own room, and sideways only as listed.
#[test]
fn nothing_imports_upward() {
    for (path, text, count) in [
        ("host/page/key.rs", "use crate::store::Tiers;", 1),
        ("host/guest/mod.rs", "use crate::store::Tiers;", 1),
        (
            "host/isr/mod.rs",
            "use crate::{page::Entry, http::{Body, Head}};",
            1,
        ),
        ("host/isr/mod.rs", "use crate::guest::Engine;", 1),
        ("host/http/mod.rs", "fn f(x: crate::app::App) {}", 1),
        (
            "host/isr/mod.rs",
            "// see crate::http\nuse crate::{page::{Entry, Tag}, store};",
            0,
        ),
        ("host/admin/mod.rs", "use crate::http::listen;", 0),
        ("host/config.rs", "use crate::guest::Limits;", 0),
    ] {
        assert_eq!(upward(&sample(path, text)).len(), count, "{path}: {text}");
    }
    hold(
        |source| source.room().is_some() && !source.is_test(),
        upward,
    );
}

/// What a file must not say, outside of comments and strings.
fn says(words: &'static [&'static str]) -> impl Fn(&Source) -> Vec<String> {
    move |source| {
        let code = source.code();
        let lines = code.iter().enumerate();
        let found = lines.filter(|(_, line)| words.iter().any(|word| has_word(line, word)));
        found
            .map(|(number, line)| format!("line ~{}: {}", number + 1, line.trim()))
            .collect()
    }
}

/// Whether `word` stands in `line` and is not a part of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    let part = |char: Option<char>| char.is_some_and(|char| char.is_alphanumeric() || char == '_');
    line.match_indices(word).any(|(at, _)| {
        !part(line[..at].chars().next_back()) && !part(line[at + word.len()..].chars().next())
    })
}

/// `anyhow` is for the top floor: below it, errors have types.
#[test]
fn errors_have_types_below_the_top_floor() {
    let rule = says(&["anyhow"]);
    assert_eq!(
        rule(&sample("host/isr/x.rs", "fn f() -> anyhow::Result<()> {}")).len(),
        1
    );
    assert!(rule(&sample("host/isr/x.rs", "// anyhow\nlet x = \"anyhow\";")).is_empty());
    hold(
        |source| source.room().is_some_and(|room| floor(room) < 4),
        rule,
    );
}

/// `unsafe` is needed to load compiled code, and nowhere else.
#[test]
fn unsafe_code_is_in_one_file() {
    let rule = says(&["unsafe"]);
    assert_eq!(
        rule(&sample("host/x.rs", "let x = unsafe { *pointer };")).len(),
        1
    );
    assert!(rule(&sample("host/x.rs", "#![deny(unsafe_code)]")).is_empty());
    hold(
        |source| source.room().is_some() && source.path != "host/guest/artifact.rs",
        rule,
    );
}

/// What is not done is not there.
#[test]
fn nothing_is_left_to_be_done() {
    fn unfinished(source: &Source) -> Vec<String> {
        // Written in halves, so that this file does not break its own rule.
        let words = [
            ["TO", "DO"],
            ["FIX", "ME"],
            ["unimplemented", "!"],
            ["to", "do!"],
        ]
        .map(|halves| halves.concat());
        let lines = source.text.lines().enumerate();
        let found = lines.filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        found
            .map(|(number, line)| format!("line {}: {}", number + 1, line.trim()))
            .collect()
    }
    assert_eq!(
        unfinished(&sample(
            "x.rs",
            concat!("// TO", "DO: later\nfn f() { to", "do!() }")
        ))
        .len(),
        2
    );
    hold(|_| true, unfinished);
}

/// Module folders use `mod.rs`: never `foo.rs` beside `foo/`.
#[test]
fn a_room_has_one_door() {
    let mut doors: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources().iter().filter(|source| source.room().is_some()) {
        let module = source
            .path
            .trim_end_matches("/mod.rs")
            .trim_end_matches(".rs");
        doors
            .entry(module.to_owned())
            .or_default()
            .push(source.path.clone());
    }
    let double: Vec<_> = doors.values().filter(|files| files.len() > 1).collect();
    assert!(double.is_empty(), "{double:?}");
}

/// What bounds a guest is listed in one place, whose constants and tests are there.
#[test]
fn every_bound_of_a_guest_has_its_test() {
    let sources = sources();
    let list = sources
        .iter()
        .find(|source| source.path == "host/guest/bounds.rs");
    let rows = list
        .unwrap()
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "));
    let rows: Vec<Vec<&str>> = rows
        .filter(|row| !row.starts_with("what |"))
        .map(|row| row.split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() > 30, "{} rows", rows.len());
    let is_there = |kinds: &[&str], name: &str| {
        let named = |line: &str| {
            let mut found = line.match_indices(name);
            found.any(|(at, _)| {
                let ends = |char: char| !char.is_alphanumeric() && char != '_';
                kinds.iter().any(|kind| line[..at].ends_with(kind))
                    && line[at + name.len()..].starts_with(ends)
            })
        };
        sources.iter().any(|source| source.text.lines().any(named))
    };
    for row in &rows {
        let word = |column: usize| row[column].trim_matches('`');
        let (constant, test) = (word(2), word(3));
        assert!(
            is_there(&["const ", "struct ", "fn "], constant),
            "no {constant}: {row:?}"
        );
        assert!(is_there(&["fn "], test), "no test {test}: {row:?}");
    }
}

/// What is committed does not speak of the machine that it was written on.
#[test]
fn no_file_names_a_workplace() {
    fn places(source: &Source) -> Vec<String> {
        let words =
            [["/wo", "rk/"], ["/ro", "ot/"], [".lib", "rary"]].map(|halves| halves.concat());
        let found = source
            .text
            .lines()
            .filter(|line| words.iter().any(|word| line.contains(word)));
        found.map(str::to_owned).collect()
    }
    assert_eq!(
        places(&sample("x.rs", concat!("// /wo", "rk/main"))).len(),
        1
    );
    hold(|_| true, places);
}
