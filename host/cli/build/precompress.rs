//! `precompress`: the coded forms of a static file, made once so that a server need not.

use std::io::Write;

use crate::http::media;
use crate::page::{Coding, compressible};

/// Below this a file fits one packet, or nearly, in any coding.
const MIN_BYTES: usize = 1024;

/// The best that each coding can do, short of taking minutes: a file is coded once and sent often.
const BROTLI_QUALITY: u32 = 11;
const BROTLI_WINDOW: u32 = 24;
const ZSTD_LEVEL: i32 = 19;

/// Whether coded forms of a file are worth their disk.
pub(super) fn is_worth_it(name: &str, bytes: &[u8]) -> bool {
    bytes.len() > MIN_BYTES && compressible(Some(&media::content_type(name)))
}

/// The file in a coding; none where that is not smaller. Takes a second for each megabyte.
pub(super) fn precompress(coding: Coding, bytes: &[u8]) -> Option<Vec<u8>> {
    let coded = match coding {
        Coding::Identity => None,
        Coding::Brotli => brotli(bytes),
        Coding::Zstd => zstd::bulk::compress(bytes, ZSTD_LEVEL).ok(),
        Coding::Gzip => gzip(bytes),
    };
    coded.filter(|coded| coded.len() < bytes.len())
}

fn brotli(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut coder = brotli::CompressorWriter::new(Vec::new(), 4096, BROTLI_QUALITY, BROTLI_WINDOW);
    coder.write_all(bytes).ok()?;
    Some(coder.into_inner())
}

fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    coder.write_all(bytes).ok()?;
    coder.finish().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_coded_and_pictures_and_crumbs_are_not() {
        let text = b"the same words ".repeat(500);
        for (name, bytes, expected) in [
            ("a.css", &text[..], true),
            ("a.svg", &text, true),
            ("a.css", &text[..MIN_BYTES], false),
            ("a.png", &text, false),
            ("a.css.br", &text, false),
        ] {
            assert_eq!(is_worth_it(name, bytes), expected, "{name}");
        }
        for coding in [Coding::Brotli, Coding::Zstd, Coding::Gzip] {
            let coded = precompress(coding, &text).unwrap();
            assert!(coded.len() < 200, "{coding:?}: {}", coded.len());
            assert_eq!(precompress(coding, &coded), None, "{coding:?}");
        }
    }
}
