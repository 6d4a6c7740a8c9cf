//! `target`: what a request asks for, or the rule that it breaks. Pure.

use http::{Method, Uri};

use super::errors::Problem;
use crate::route::{Path, PathError};

/// Bytes of a URL, query included: RFC 9110 section 4.1 recommends at least 8000.
const MAX_URL: usize = 8 * 1024;

/// The canonical path that the request asks for.
///
/// # Errors
/// What the request is answered with instead.
pub(super) fn target(method: &Method, uri: &Uri) -> Result<Path, Problem> {
    let query = uri.query().map_or(0, str::len);
    if uri.path().len() + query > MAX_URL {
        return Err(Problem::UrlTooLong);
    }
    match Path::parse(uri.path()) {
        Ok(path) => Ok(path),
        Err(PathError::Elsewhere(path)) => Err(Problem::Elsewhere(match uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        })),
        // `OPTIONS *` has no path at all.
        Err(PathError::BadEscape(_)) if !is_read(method) => Err(Problem::Method),
        Err(PathError::BadEscape(bad)) => Err(Problem::Path(bad)),
    }
}

/// Whether the method only reads.
pub(super) fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &Method, url: &str) -> String {
        match target(method, &url.parse().unwrap()) {
            Ok(path) => path.to_string(),
            Err(Problem::Elsewhere(location)) => format!("308 {location}"),
            Err(problem) => problem.status().as_u16().to_string(),
        }
    }

    #[test]
    fn each_rule() {
        let long = format!("/{}", "a".repeat(MAX_URL));
        for (url, expected) in [
            ("/a", "/a"),
            ("http://other/a?q", "/a"),
            ("http://other", "/"),
            ("/%zz", "400"),
            (&long, "414"),
        ] {
            assert_eq!(ask(&Method::GET, url), expected, "{url}");
        }
    }

    #[test]
    fn a_redirect_to_the_normal_form_keeps_the_query_and_the_host() {
        for (url, expected) in [
            ("/a/?q=/", "308 /a?q=/"),
            (
                "http://h//evil.example/?a=1&b=//",
                "308 /evil.example?a=1&b=//",
            ),
        ] {
            assert_eq!(ask(&Method::GET, url), expected, "{url}");
        }
    }

    #[test]
    fn requests_without_a_path_may_at_least_not_be_reads() {
        assert_eq!(ask(&Method::OPTIONS, "*"), "405");
    }
}
