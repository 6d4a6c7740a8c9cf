//! Paths and patterns against models that share no line with them.

use std::path::Path as FilePath;

use proptest::prelude::*;

use super::path::Path;
use super::*;
use crate::fuzz;

/// RFC 3986 read literally: split, decode byte by byte, then drop what means nothing.
fn model(raw: &str) -> Option<Vec<String>> {
    let mut segments: Vec<String> = Vec::new();
    for part in raw.strip_prefix('/')?.split('/') {
        let (mut bytes, mut rest) = (Vec::new(), part.as_bytes());
        while let [first, after @ ..] = rest {
            rest = after;
            if *first != b'%' {
                bytes.push(*first);
                continue;
            }
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            let [high, low, after @ ..] = rest else {
                return None;
            };
            bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).unwrap());
            rest = after;
        }
        let segment = String::from_utf8(bytes).ok()?;
        match segment.as_str() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            text if text.contains('\0') => return None,
            _ => segments.push(segment),
        }
        // The same limit at the same place: a path that is too long in between is too long.
        if segments.len() > MAX_SEGMENTS {
            return None;
        }
    }
    Some(segments)
}

const PATHS: &[&str] = &[
    "/",
    "/posts/1",
    "/posts/%2e%2E/./about//",
    "/caf%C3%A9/caf%c3%a9/café",
    "/a%2Fb/%252F/%5c\\",
    "//evil.example/%2F%2Fevil.example",
    "/a;v=1/b@:!$&'()*+,=~",
];

#[test]
fn a_path_means_what_the_standard_says() {
    let words = [
        "/", "//", "%2F", "%2e", "..", ".", "%", "%c3", "%A9", "%00", "\\", "?", "%25", "+",
    ];
    fuzz::run("path", &fuzz::text(PATHS, &words), |raw| {
        let parsed = Path::parse(&raw);
        let normal = match &parsed {
            Ok(path) => path.as_str(),
            Err(PathError::Elsewhere(normal)) => normal,
            Err(PathError::BadEscape(_)) => {
                prop_assert_eq!(model(&raw), None);
                return Ok(());
            }
        };
        let again = Path::parse(normal);
        prop_assert_eq!(again.as_ref().map(Path::as_str), Ok(normal));
        let segments: Vec<String> = again.unwrap().segments().map(str::to_owned).collect();
        prop_assert_eq!(model(&raw), Some(segments));
        // Safe in a header and as a redirect to this host.
        let safe = |byte: u8| byte.is_ascii_graphic() && !b"\\\"<>?#".contains(&byte);
        prop_assert!(normal.bytes().all(safe) && !normal.starts_with("//"));
        Ok(())
    });
}

/// Matching as the documentation has it, by trying everything.
fn matches(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        ([any], _) if any.starts_with("[[...") => true,
        ([many], [_, ..]) if many.starts_with("[...") => true,
        ([one, pattern @ ..], [_, path @ ..])
            if one.starts_with('[') && !one.starts_with("[...") && !one.starts_with("[[") =>
        {
            matches(pattern, path)
        }
        ([text, pattern @ ..], [segment, path @ ..]) => text == segment && matches(pattern, path),
        _ => false,
    }
}

#[test]
fn a_pattern_matches_what_its_text_says() {
    let files = [
        "index.wasm",
        "posts/[id].wasm",
        "docs/[...slug].wasm",
        "[[...all]].wasm",
        "[lang]/[...rest].wasm",
        "a b/é/%41.wasm",
        "[a]/[b]/c/index.wasm",
    ];
    let words = [
        "[", "]", "[[", "]]", "...", "/", "[id]", "[...x]", ".wasm", "index", "..", "\0",
    ];
    let inputs = (
        fuzz::text(&files, &words),
        fuzz::text(PATHS, &["/", "posts", "docs", "a%20b"]),
    );
    fuzz::run("pattern", &inputs, |(file, path)| {
        let Ok(pattern) = Pattern::of_file(FilePath::new(&file)) else {
            return Ok(());
        };
        prop_assert_eq!(Pattern::parse(pattern.as_str()), Ok(pattern.clone()));
        let Ok(path) = Path::parse(&path) else {
            return Ok(());
        };
        let mut table = Table::new();
        prop_assert!(table.insert(pattern.clone(), ()).is_ok());
        let text: Vec<&str> = pattern.as_str()[1..]
            .split('/')
            .filter(|part| !part.is_empty())
            .collect();
        let segments: Vec<&str> = path.segments().collect();
        let found = table.matches(&path).next();
        prop_assert_eq!(
            found.is_some(),
            matches(&text, &segments),
            "{} {}",
            pattern,
            path
        );
        if found.is_some() {
            prop_assert_eq!(pattern.path_of(&pattern.params_of(&path)), Ok(path));
        }
        Ok(())
    });
}
