//! Calls of the revalidate endpoint, from systems of all kinds.

use std::collections::HashSet;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use proptest::prelude::*;
use serde_json::json;

use super::call::{Call, authorised, demand};
use crate::fuzz;
use crate::http::Secret;
use crate::page::Mode;
use crate::route::Path;

const NAMES: &[&str] = &[
    "path",
    "tag",
    "mode",
    "onlyGenerated",
    "=",
    "&",
    "%2F",
    "%",
    "purge",
    "/a",
    "?",
];
const SIGNS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ",",
    ":",
    "\\u00",
    "\"tags\"",
    "\"purge\"",
    "1",
    "null",
];

#[test]
fn a_call_is_understood_one_way() {
    let queries = [
        "path=/posts/1&tag=a&mode=stale&onlyGenerated",
        "secret=x&path=/posts/%25C3%25A9/&path=/b",
        "mode=purge&path=//a/?q=1&onlyGenerated=0",
        "",
    ];
    let bodies = [
        r#"{"paths":["/posts/1","/a?q=1"],"tags":["a"],"mode":"stale","onlyGenerated":true}"#,
        r#"{"paths":["/\u00e9/"],"mode":"purge"}"#,
        " ",
    ];
    let inputs = (fuzz::text(&queries, NAMES), fuzz::text(&bodies, SIGNS));
    fuzz::run("revalidate", &inputs, |(query, body)| {
        let call = match demand(&query, body.as_bytes()).and_then(Call::of) {
            Ok(call) => call,
            Err(mistake) => {
                prop_assert!(!mistake.is_empty());
                return Ok(());
            }
        };
        let count = call.paths.len() + call.tags.len();
        prop_assert!((1..=1_000).contains(&count));
        prop_assert!(call.mode != Some(Mode::Purge) || call.tags.is_empty());
        let mut pages = HashSet::new();
        for target in &call.paths {
            prop_assert_eq!(Path::parse(target.path.as_str()), Ok(target.path.clone()));
            prop_assert!(
                pages.insert((&target.path, &target.query)),
                "{:?} twice",
                target
            );
        }
        let mode = call.mode.map(|mode| format!("{mode:?}").to_lowercase());
        let written: Vec<_> = call.paths.iter().map(|target| &target.written).collect();
        let said = json!({
            "paths": written, "tags": call.tags, "mode": mode, "onlyGenerated": call.only_generated,
        });
        let again = demand("", said.to_string().as_bytes()).and_then(Call::of);
        prop_assert_eq!(
            again.map(|call| format!("{call:?}")),
            Ok(format!("{call:?}"))
        );
        Ok(())
    });
}

#[test]
fn only_the_token_opens() {
    let token = Secret::new("s3cret");
    let queries = [
        "secret=s3cret",
        "path=/&secret=s3cret",
        "%73ecret=s3cre%74",
        "path=/",
    ];
    let lines = ["Bearer s3cret", "bearer  s3cret ", "Basic s3cret", ""];
    let inputs = (
        fuzz::text(&queries, &["secret=", "s3cret", "&", "%", "=", "+"]),
        fuzz::text(&lines, &["Bearer ", "s3cret", " ", "\t"]),
    );
    fuzz::run("token", &inputs, |(query, line)| {
        let Ok(value) = HeaderValue::from_bytes(line.as_bytes()) else {
            return Ok(());
        };
        let given = url::form_urlencoded::parse(query.as_bytes());
        let given: Vec<_> = given
            .filter(|(name, _)| name == "secret")
            .map(|(_, value)| value)
            .collect();
        let by_query = given == ["s3cret"];
        let is_open = authorised(&query, &HeaderMap::new(), &token);
        prop_assert_eq!(is_open, by_query);
        let scheme = line
            .get(..7)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer "));
        let by_header = scheme && line[7..].trim_ascii() == "s3cret";
        let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
        prop_assert_eq!(authorised("", &headers, &token), by_header);
        // Said twice, it is not said.
        let is_open = authorised(&query, &headers, &token);
        prop_assert_eq!(is_open, by_header && given.is_empty());
        Ok(())
    });
}
