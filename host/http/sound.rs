//! `sound`: whether a request is one, by the letter of the standards; for both doors. Pure.
//!
//! What hyper lets pass and a server in front might read otherwise is refused here, and the
//! connection with it: where one message ends and the next begins is then a matter of opinion.

use http::header::{EXPECT, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, Uri, Version};

use super::errors::Problem;

/// Holds a request to the rules. Afterwards its one `host` is the one it is for: the target's,
/// where the target names one (RFC 9112 section 3.2.2).
///
/// # Errors
/// The first rule that it breaks.
pub(super) fn sound<B>(request: &mut Request<B>) -> Result<(), Problem> {
    let (method, uri, version) = (request.method(), request.uri(), request.version());
    let headers = request.headers();
    coding(headers)?;
    expectation(headers)?;
    target(method, uri)?;
    host(uri, version, headers)?;
    let authority = uri.authority().filter(|_| version != Version::HTTP_2);
    let authority = authority.map(|authority| HeaderValue::from_str(authority.as_str()));
    if let Some(Ok(host)) = authority {
        request.headers_mut().insert(HOST, host);
    }
    Ok(())
}

/// RFC 9112 section 6.1: `chunked` is the only coding there is here, and it is applied once.
fn coding(headers: &HeaderMap) -> Result<(), Problem> {
    let lines = headers.get_all(TRANSFER_ENCODING).iter();
    let mut codings = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let Some(first) = codings.next() else {
        return Ok(());
    };
    let is_chunked = |coding: &[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
    let mut count = 1;
    let known = is_chunked(first)
        && codings.all(|coding| {
            count += 1;
            is_chunked(coding)
        });
    match (known, count) {
        (true, 1) => Ok(()),
        (true, _) => Err(Problem::Malformed("The body is `chunked` twice")),
        (false, _) => Err(Problem::Coding),
    }
}

/// RFC 9110 section 10.1.1: what is expected and unknown cannot be met.
fn expectation(headers: &HeaderMap) -> Result<(), Problem> {
    let mut lines = headers.get_all(EXPECT).iter();
    if lines.all(|line| line.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        Ok(())
    } else {
        Err(Problem::Expectation)
    }
}

/// RFC 9112 section 3.2: `*` is for OPTIONS, and `host:port` for CONNECT: there is no tunnel here,
/// and what the client sends into it is no request. RFC 9110 section 4.2: the URL of a page is one
/// of http or https and names no user.
fn target(method: &Method, uri: &Uri) -> Result<(), Problem> {
    if *method == Method::CONNECT {
        return Err(Problem::Method);
    }
    let is_star = *method == Method::OPTIONS && uri.path() == "*";
    if !uri.path().starts_with('/') && !is_star {
        return Err(Problem::Malformed("The request's target is not a path"));
    }
    if !matches!(uri.scheme_str(), None | Some("http" | "https")) {
        return Err(Problem::Malformed("The request's target is not of http"));
    }
    if uri
        .authority()
        .is_some_and(|name| name.as_str().contains('@'))
    {
        return Err(Problem::Malformed("The request's target names a user"));
    }
    Ok(())
}

/// RFC 9112 section 3.2: HTTP/1.1 requests have exactly one valid `Host`; RFC 9110 section 4.2.1: a
/// host is not empty. HTTP/2 has `:authority` in its place, which a `host` beside it must equal (RFC
/// 9113 section 8.3.1). HTTP/1.0 had neither.
fn host(uri: &Uri, version: Version, headers: &HeaderMap) -> Result<(), Problem> {
    let authority = uri.authority().map(|authority| authority.as_str());
    let mut lines = headers.get_all(HOST).iter();
    let wrong = match (lines.next().map(HeaderValue::as_bytes), lines.next()) {
        (Some(_), Some(_)) => "is given twice",
        (Some(b""), None) => "is empty",
        (Some(host), None) if !is_host(host) => "is not a valid host and port",
        (Some(host), None) => match authority {
            Some(name) if version == Version::HTTP_2 && name.as_bytes() != host => {
                "is not the request's `:authority`"
            }
            _ => return Ok(()),
        },
        (None, _) if version == Version::HTTP_11 => "is missing",
        (None, _) if version == Version::HTTP_2 && authority.is_none() => {
            "and `:authority` are missing"
        }
        (None, _) => return Ok(()),
    };
    Err(Problem::Host(wrong))
}

/// The bytes of a host and port.
static IN_HOST: [bool; 256] = letters_digits_and(b"-._~%!$&'()*+;=:[]");

/// A set of ASCII characters, to be asked for each byte of a request.
pub(super) const fn letters_digits_and(marks: &[u8]) -> [bool; 256] {
    let mut set = [false; 256];
    let mut byte = 0;
    while byte < set.len() {
        set[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut mark = 0;
    while mark < marks.len() {
        set[marks[mark] as usize] = true;
        mark += 1;
    }
    set
}

/// RFC 3986 section 3.2.2, roughly: what cannot be in a host never passes; after its last colon
/// come digits.
pub(super) fn is_host(host: &[u8]) -> bool {
    let is_name = host.iter().all(|byte| IN_HOST[usize::from(*byte)]);
    let name_end = host.iter().rposition(|byte| *byte == b']').unwrap_or(0);
    let mut parts = host[name_end..].split(|byte| *byte == b':');
    let after = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    is_name && parts.next().is_some() && parts.next().is_none_or(after) && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `GET /` if nothing else is said, and the `host` that it is for.
    fn ask(method: &str, target: &str, version: Version, lines: &[(&str, &str)]) -> String {
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .version(version);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        match sound(&mut request) {
            Ok(()) => {
                let host = request.headers().get(HOST);
                host.map_or("", |host| host.to_str().unwrap()).to_owned()
            }
            Err(problem) => format!("{} {}", problem.status().as_u16(), problem.explain()),
        }
    }

    fn hold(rows: &[(&str, Version, &[&str], &str)]) {
        for (target, version, hosts, expected) in rows {
            let lines: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            let told = ask("GET", target, *version, &lines);
            let is_met = match *expected {
                "" => told.is_empty(),
                start => told.starts_with(start),
            };
            assert!(is_met, "{target} {version:?} {hosts:?}: {told}");
        }
    }

    #[test]
    fn a_request_is_for_one_host() {
        let v1 = Version::HTTP_11;
        hold(&[
            ("/", v1, &["x"], "x"),
            ("/", v1, &["x:80"], "x:80"),
            ("/", v1, &["[::1]:80"], "[::1]:80"),
            ("/", v1, &["[::1]"], "[::1]"),
            ("/", v1, &[], "400 The `host` header is missing"),
            ("/", v1, &[""], "400 The `host` header is empty"),
            ("/", v1, &["x", "x"], "400 The `host` header is given twice"),
            ("/", v1, &["x/y"], "400 The `host` header is not"),
            ("/", v1, &["a@b"], "400 The `host` header is not"),
            ("/", v1, &["a:b"], "400 The `host` header is not"),
            ("/", v1, &["a:1:2"], "400 The `host` header is not"),
            ("/", v1, &["a, b"], "400 The `host` header is not"),
            ("/", Version::HTTP_10, &[], ""),
            ("/", Version::HTTP_10, &["x", "x"], "400 "),
        ]);
    }

    #[test]
    fn the_host_of_the_target_counts() {
        let (v1, v2) = (Version::HTTP_11, Version::HTTP_2);
        hold(&[
            ("http://other/", v1, &["x"], "other"),
            ("http://other", v1, &["x"], "other"),
            ("http://other/", v1, &[], "400 The `host` header is missing"),
            ("http://x/", v2, &[], ""),
            ("http://x/", v2, &["x"], "x"),
            ("http://x/", v2, &["y"], "400 The `host` header is not the"),
            ("/", v2, &[], "400 "),
        ]);
    }

    #[test]
    fn a_target_is_the_path_of_a_page() {
        for (method, target, expected) in [
            ("GET", "*", "400 The request's target is not a path"),
            ("OPTIONS", "*", "x"),
            ("OPTIONS", "/a", "x"),
            ("GET", "other:80", "400 The request's target is not a path"),
            ("CONNECT", "other:80", "405 "),
            ("CONNECT", "/", "405 "),
            (
                "GET",
                "ftp://other/a",
                "400 The request's target is not of http",
            ),
            (
                "GET",
                "http://u:p@other/a",
                "400 The request's target names a user",
            ),
        ] {
            let told = ask(method, target, Version::HTTP_11, &[("host", "x")]);
            assert!(told.starts_with(expected), "{method} {target}: {told}");
        }
    }

    #[test]
    fn a_body_is_coded_once_and_in_a_way_that_is_known() {
        for (codings, expected) in [
            (&["chunked"][..], "x"),
            (&[" Chunked "], "x"),
            (&["chunked, chunked"], "400 The body is `chunked` twice"),
            (&["chunked", "chunked"], "400 The body is `chunked` twice"),
            (&["gzip, chunked"], "501 "),
            (&["identity", "chunked"], "501 "),
            (&["chunked, "], "501 "),
            (&[""], "501 "),
        ] {
            let coded = codings.iter().map(|coding| ("transfer-encoding", *coding));
            let lines: Vec<_> = [("host", "x")].into_iter().chain(coded).collect();
            let told = ask("POST", "/", Version::HTTP_11, &lines);
            assert!(told.starts_with(expected), "{codings:?}: {told}");
        }
    }

    #[test]
    fn only_one_expectation_can_be_met() {
        for (expected, status) in [("100-Continue", "x"), ("200-ok", "417 "), ("", "417 ")] {
            let lines = [("host", "x"), ("expect", expected)];
            let told = ask("POST", "/", Version::HTTP_11, &lines);
            assert!(told.starts_with(status), "{expected}: {told}");
        }
    }
}
