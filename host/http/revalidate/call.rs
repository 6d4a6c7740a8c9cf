//! `Call`: what a caller of the revalidate endpoint asks for. Pure.

use std::borrow::Cow;
use std::collections::HashSet;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use super::super::Secret;
use super::super::config::bearer;
use super::super::locate::pairs;
use super::super::upload;
use crate::page::{Demand, Mode, Tag};
use crate::route::{Path, PathError};

/// Paths and tags in one call: a content system changes hundreds at once, not more.
const MAX_TARGETS: usize = 1_000;

/// A call, understood.
#[derive(Debug, Default)]
pub(in crate::http) struct Call {
    pub(super) paths: Vec<Target>,
    pub(super) tags: Vec<Tag>,
    pub(super) only_generated: bool,
    pub(super) mode: Option<Mode>,
}

/// A path, as the caller wrote it and as it is.
#[derive(Debug)]
pub(in crate::http) struct Target {
    pub(in crate::http) written: String,
    pub(in crate::http) path: Path,
    pub(in crate::http) query: Option<String>,
}

/// What the query may say, beside or instead of the body. Hooks are called with parameters of their
/// own as well.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Parameters {
    /// The token, where no `authorization: Bearer` bears it.
    secret: Option<String>,
    /// Paths of pages, with the query parameters that are part of their keys.
    path: Vec<String>,
    /// Tags of pages.
    tag: Vec<String>,
    /// What is done; by default paths are regenerated and tags become stale.
    mode: Option<Mode>,
    /// Leave pages alone that were never made.
    only_generated: Option<Flag>,
}

/// Yes or no, as a query says it.
#[derive(Debug)]
struct Flag(bool);

const FLAGS: [(&str, bool); 5] = [
    ("true", true),
    ("false", false),
    ("1", true),
    ("0", false),
    ("", true),
];

/// Whether the caller knows the token, from `?secret=` or `authorization: Bearer`. Given twice, it
/// is not given.
pub(in crate::http) fn authorised(query: &str, headers: &HeaderMap, token: &Secret) -> bool {
    let mut given = pairs(query)
        .filter(|(name, _)| name == "secret")
        .map(|(_, value)| value.into_owned().into_bytes())
        .chain(
            headers
                .get_all(AUTHORIZATION)
                .iter()
                .map(|value| bearer(value).unwrap_or_default().to_vec()),
        );
    match (given.next(), given.next()) {
        (Some(given), None) => token.is(&given),
        _ => false,
    }
}

/// Reads the query and the body, which may be empty.
///
/// # Errors
/// The first thing that is wrong, for the caller to read.
pub(super) fn demand(query: &str, body: &[u8]) -> Result<Demand, String> {
    let mut written = if body.trim_ascii().is_empty() {
        Demand::default()
    } else {
        upload::object(body).map_err(|error| format!("the body: {error}"))?
    };
    let given: Parameters =
        serde_html_form::from_str(query).map_err(|error| format!("the query: {error}"))?;
    written.paths.extend(given.path);
    written.tags.extend(given.tag);
    written.mode = given.mode.or(written.mode);
    if let Some(Flag(only_generated)) = given.only_generated {
        written.only_generated = only_generated;
    }
    Ok(written)
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let found = FLAGS.into_iter().find(|(word, _)| *word == text);
        found.map(|(_, flag)| Self(flag)).ok_or_else(|| {
            serde::de::Error::custom(format!("onlyGenerated {text:?}: it is `true` or `false`"))
        })
    }
}

impl JsonSchema for Flag {
    fn schema_name() -> Cow<'static, str> {
        "Flag".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"enum": FLAGS.map(|(word, _)| word)})
    }
}

impl Call {
    /// Understands what was written.
    ///
    /// # Errors
    /// The first thing that is wrong, for whoever wrote it to read.
    pub(in crate::http) fn of(written: Demand) -> Result<Self, String> {
        let count = written.paths.len() + written.tags.len();
        if count == 0 {
            return Err("neither a path nor a tag is given".to_owned());
        }
        if count > MAX_TARGETS {
            return Err(format!("{count} paths and tags: at most {MAX_TARGETS}"));
        }
        if written.mode == Some(Mode::Purge) && !written.tags.is_empty() {
            return Err("purge is for paths: tags can be made `stale` or regenerated".to_owned());
        }
        let paths = written.paths.into_iter().map(Target::parse);
        let mut paths = paths.collect::<Result<Vec<_>, _>>()?;
        // A page is made once in a call, however often it is named.
        let mut named = HashSet::new();
        paths.retain(|target| named.insert((target.path.clone(), target.query.clone())));
        let tags = written.tags.iter().map(|tag| Tag::new(tag));
        Ok(Call {
            paths,
            tags: tags
                .collect::<Result<_, _>>()
                .map_err(|error| error.to_string())?,
            only_generated: written.only_generated,
            mode: written.mode,
        })
    }
}

impl Target {
    /// The path that somebody wrote, whatever its spelling.
    pub(in crate::http) fn parse(written: String) -> Result<Self, String> {
        let (path, query) = match written.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (&*written, None),
        };
        let path = match Path::parse(path) {
            // The page itself is meant, whatever its spelling.
            Err(PathError::Elsewhere(normal)) => Path::parse(&normal),
            parsed => parsed,
        }
        .map_err(|error| format!("path {written:?}: {error}"))?;
        Ok(Self {
            path,
            query,
            written,
        })
    }

    /// The page's URL on its site, in its one spelling.
    pub(in crate::http) fn location(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn parse(query: &str, body: &[u8]) -> Result<Call, String> {
        demand(query, body).and_then(Call::of)
    }

    #[test]
    fn the_token_comes_from_one_place_and_whole() {
        let token = Secret::new("s3cret");
        for (query, header, expected) in [
            ("secret=s3cret", None, true),
            ("path=/&secret=s3cret", None, true),
            ("", Some("Bearer s3cret"), true),
            ("", Some("bearer  s3cret "), true),
            ("", None, false),
            ("secret=", None, false),
            ("secret=s3cre", None, false),
            ("secret=s3cret&secret=s3cret", None, false),
            ("secret=s3cret", Some("Bearer s3cret"), false),
            ("", Some("Basic s3cret"), false),
            ("", Some("s3cret"), false),
            ("Secret=s3cret", None, false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert(AUTHORIZATION, HeaderValue::from_static(header));
            }
            let told = authorised(query, &headers, &token);
            assert_eq!(told, expected, "{query} {header:?}");
        }
    }

    #[test]
    fn query_and_body_say_the_same_things() {
        let query =
            "secret=x&path=/posts/1&path=/posts/%C3%A9/&tag=a&mode=stale&onlyGenerated=true";
        let body = br#"{"paths":["/posts/1","/posts/%C3%A9/"],"tags":["a"],"mode":"stale","onlyGenerated":true}"#;
        for call in [parse(query, b" "), parse("", body)] {
            let call = call.unwrap();
            let paths: Vec<_> = call
                .paths
                .iter()
                .map(|target| target.path.as_str())
                .collect();
            assert_eq!(paths, ["/posts/1", "/posts/%C3%A9"]);
            assert_eq!(call.tags[0].as_str(), "a");
            assert_eq!((call.mode, call.only_generated), (Some(Mode::Stale), true));
        }
        let both = parse("path=/b", br#"{"paths":["/a?q=1"]}"#).unwrap();
        let written: Vec<_> = both.paths.iter().map(|target| &*target.written).collect();
        assert_eq!(written, ["/a?q=1", "/b"]);
        assert_eq!(both.paths[0].query.as_deref(), Some("q=1"));
    }

    #[test]
    fn mistakes_are_named() {
        let many = format!("{{\"paths\":[{}\"/a\"]}}", "\"/a\",".repeat(MAX_TARGETS));
        for (query, body, part) in [
            ("", "", "neither a path nor a tag"),
            ("path=posts", "", "begins with `/`"),
            ("path=http://x/", "", "begins with `/`"),
            ("path=/%25zz", "", "hexadecimal"),
            ("tag=", "", "1 to 256"),
            ("path=/&mode=now", "", "`regenerate`, `stale`, `purge`"),
            ("path=/&onlyGenerated=yes", "", "`true` or `false`"),
            ("tag=a&mode=purge", "", "purge is for paths"),
            ("", "{", "the body: "),
            ("", "3", "the body: "),
            ("", r#"[["/"]]"#, "an object is expected"),
            ("", r#"{"path":["/"]}"#, "unknown field `path`"),
            ("", r#"{"paths":"/"}"#, "expected a sequence"),
            ("", &many, "at most 1000"),
        ] {
            let message = parse(query, body.as_bytes()).unwrap_err();
            assert!(message.contains(part), "{query} {body}: {message}");
        }
    }

    #[test]
    fn a_page_named_twice_is_one_page() {
        let call = parse(
            "path=/b&path=/b/",
            br#"{"paths":["/a","/b","/a?q=1","/a"]}"#,
        );
        let call = call.unwrap();
        let written: Vec<_> = call.paths.iter().map(|target| &*target.written).collect();
        assert_eq!(written, ["/a", "/b", "/a?q=1"]);
    }
}
