//! `content_type` and `is_fingerprinted`: what the name of a file says of it. Pure.

use http::HeaderValue;

/// Characters of the shortest hash in a name: that many have esbuild's, Vite's and webpack's.
const MIN_HASH: usize = 8;

/// The media type of a file, by the end of its name. Text is UTF-8, as nearly all of it is.
pub fn content_type(name: &str) -> HeaderValue {
    let kind = mime_guess::from_path(name).first_raw();
    match kind.unwrap_or("application/octet-stream") {
        // RFC 9239 section 6: there is one type for scripts.
        "application/javascript" => HeaderValue::from_static("text/javascript; charset=utf-8"),
        text if text.starts_with("text/") => {
            let text = format!("{text}; charset=utf-8");
            HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("text/plain"))
        }
        other => HeaderValue::from_static(other),
    }
}

/// Whether the name has a hash of the content in it, so that other content has another name:
/// `app.3f9a1c2e.css`, `app-BX3k9QzW.js`, `index.3f9a1c2e.js.map`.
///
/// A hash is a part of the name after a `.`, `-` or `_`, of 8 characters or more, that no word or
/// date looks like: lower-case hexadecimal digits that change between letters and digits twice or
/// more; or letters and digits that change between small ones, capitals and digits at every second
/// character or more. Some hashes look like words, and are not taken for one: their files are asked
/// for again, which costs a request, while a word that is taken for a hash is never asked for again.
pub(super) fn is_fingerprinted(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    name.split(['.', '-', '_']).skip(1).any(is_hash)
}

fn is_hash(part: &str) -> bool {
    let bytes = part.as_bytes();
    if bytes.len() < MIN_HASH || !bytes.iter().all(u8::is_ascii_alphanumeric) {
        return false;
    }
    let class = |byte: &u8| match byte {
        b'0'..=b'9' => 0,
        b'a'..=b'z' => 1,
        _ => 2,
    };
    let changes = bytes
        .windows(2)
        .filter(|two| class(&two[0]) != class(&two[1]));
    let changes = changes.count();
    let is_hex = bytes
        .iter()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    changes >= if is_hex { 2 } else { bytes.len() / 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_told_from_a_word() {
        for (name, expected) in [
            ("app.3f9a1c2e.css", true),
            ("assets/app-BX3k9QzW.js", true),
            ("assets/index-B8fR2xYz.css", true),
            ("main.0a1b2c3d4e5f60718293a4b5c6d7e8f9.chunk.js", true),
            ("app.3f9a1c2e.js.map", true),
            ("app_3f9a1c2e.css", true),
            ("3f9a1c2e.css", false),
            ("3f9a1c2e/app.css", false),
            ("app.css", false),
            ("app-settings.js", false),
            ("jquery.validate.js", false),
            ("report-20240101.pdf", false),
            ("annual-Report2024Final.pdf", false),
            ("setup-Windows10.exe", false),
            ("my-MyButton.js", false),
            ("the-decade2020.html", false),
            ("app.3f9a1c2.css", false),
            ("app.3f9a 1c2e.css", false),
        ] {
            assert_eq!(is_fingerprinted(name), expected, "{name}");
        }
    }

    #[test]
    fn types_are_those_that_browsers_ask_for() {
        for (name, expected) in [
            ("a.css", "text/css; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("a.mjs", "text/javascript; charset=utf-8"),
            ("a.html", "text/html; charset=utf-8"),
            ("robots.txt", "text/plain; charset=utf-8"),
            ("a.JSON", "application/json"),
            ("a.webmanifest", "application/manifest+json"),
            ("a.svg", "image/svg+xml"),
            ("a.avif", "image/avif"),
            ("a.woff2", "font/woff2"),
            ("a.wasm", "application/wasm"),
            ("a.css.gz", "application/gzip"),
            ("a.css.br", "application/octet-stream"),
            ("LICENSE", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name), expected, "{name}");
        }
    }
}
