//! `target`: what a request asks for, or the rule that it breaks. Pure.

use http::header::HOST;
use http::{HeaderMap, Method, Uri, Version};

use super::errors::Problem;
use crate::route::{Path, PathError};

/// Bytes of a URL, query included: RFC 9110 section 4.1 recommends at least 8000.
const MAX_URL: usize = 8 * 1024;

/// The canonical path that the request asks for.
///
/// # Errors
/// What the request is answered with instead.
pub(super) fn target(
    method: &Method,
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
) -> Result<Path, Problem> {
    host(uri, version, headers)?;
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
        // `OPTIONS *` and `CONNECT host:port` have no path at all.
        Err(PathError::BadEscape(_)) if !is_read(method) => Err(Problem::Method),
        Err(PathError::BadEscape(bad)) => Err(Problem::Path(bad)),
    }
}

/// Whether the method only reads.
pub(super) fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// RFC 9112 section 3.2: HTTP/1.1 requests have exactly one valid `Host`. HTTP/2 has `:authority`
/// in its place, and HTTP/1.0 had neither.
fn host(uri: &Uri, version: Version, headers: &HeaderMap) -> Result<(), Problem> {
    let mut lines = headers.get_all(HOST).iter();
    match (lines.next(), lines.next()) {
        (Some(host), None) if is_host(host.as_bytes()) => Ok(()),
        (Some(_), None) => Err(Problem::Host("is not a valid host and port")),
        (Some(_), Some(_)) => Err(Problem::Host("is given twice")),
        (None, _) if version == Version::HTTP_11 => Err(Problem::Host("is missing")),
        (None, _) if version == Version::HTTP_2 && uri.authority().is_none() => {
            Err(Problem::Host("and `:authority` are missing"))
        }
        (None, _) => Ok(()),
    }
}

/// RFC 3986 section 3.2.2, roughly: what cannot be in a host never passes. An empty one is allowed
/// (RFC 9112 section 3.2, for targets without authority).
fn is_host(host: &[u8]) -> bool {
    host.iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn ask(target_: &str, version: Version, hosts: &[&'static str]) -> String {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_static(host));
        }
        let uri = target_.parse().unwrap();
        match target(&Method::GET, &uri, version, &headers) {
            Ok(path) => path.to_string(),
            Err(problem) => format!("{} {}", problem.status().as_u16(), problem.explain()),
        }
    }

    #[test]
    fn each_rule() {
        let long = format!("/{}", "a".repeat(MAX_URL));
        for (target, version, hosts, expected) in [
            ("/a", Version::HTTP_11, &["x"][..], "/a"),
            ("/a", Version::HTTP_11, &["[::1]:80"], "/a"),
            ("/a", Version::HTTP_11, &[""], "/a"),
            (
                "/a",
                Version::HTTP_11,
                &[],
                "400 The `host` header is missing",
            ),
            (
                "/a",
                Version::HTTP_11,
                &["x", "x"],
                "400 The `host` header is given twice",
            ),
            (
                "/a",
                Version::HTTP_11,
                &["x/y"],
                "400 The `host` header is not",
            ),
            (
                "/a",
                Version::HTTP_11,
                &["a@b"],
                "400 The `host` header is not",
            ),
            ("/a", Version::HTTP_10, &[], "/a"),
            ("/a", Version::HTTP_10, &["x", "x"], "400 "),
            ("http://x/a", Version::HTTP_2, &[], "/a"),
            ("/a", Version::HTTP_2, &[], "400 "),
            ("http://other/a?q", Version::HTTP_11, &["x"], "/a"),
            ("http://other", Version::HTTP_11, &["x"], "/"),
            ("/a/?q=/", Version::HTTP_11, &["x"], "308 "),
            ("/%zz", Version::HTTP_11, &["x"], "400 "),
            (&long, Version::HTTP_11, &["x"], "414 "),
        ] {
            let answer = ask(target, version, hosts);
            assert!(
                answer.starts_with(expected),
                "{target} {version:?} {hosts:?}: {answer}"
            );
        }
    }

    #[test]
    fn a_redirect_to_the_normal_form_keeps_the_query_and_the_host() {
        let uri = "http://h//evil.example/?a=1&b=//".parse().unwrap();
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("h"))]);
        let moved = target(&Method::GET, &uri, Version::HTTP_11, &headers);
        let Err(Problem::Elsewhere(location)) = moved else {
            panic!("not a redirect");
        };
        assert_eq!(location, "/evil.example?a=1&b=//");
    }

    #[test]
    fn requests_without_a_path_may_at_least_not_be_reads() {
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("h"))]);
        let uri = "*".parse().unwrap();
        let problem = target(&Method::OPTIONS, &uri, Version::HTTP_11, &headers).unwrap_err();
        assert_eq!(problem.status().as_u16(), 405);
    }
}
