//! What crosses the border: the contract's words to the cache's, checked on their way out.

use bytes::Bytes;
use serde::de::IgnoredAny;

use super::bindings::exports::wisr::page::paths;
use super::bindings::wisr::page::page_types as wit;
use super::limits::Limits;
use super::trap::{Stop, size};
use crate::page::{
    Cause, Context, Document, FailureKind, Fallback, Given, Lifetime, Outcome, Param, PathList,
    Props, Rejected, Tag, check_redirect,
};

/// What `static-props` decided.
pub(super) enum Decision {
    /// There is a page with these props and tags.
    Render(Props, Vec<Tag>),
    /// There is none; the outcome is known without rendering.
    Done(Outcome),
}

/// A context in the guest's words.
pub(super) fn context(context: &Context) -> wit::Context {
    wit::Context {
        route: context.route.to_string(),
        path: context.path.clone(),
        params: context
            .params
            .iter()
            .map(|param| wit::Param {
                name: param.name.clone(),
                values: param.values.clone(),
            })
            .collect(),
        query: context.query.clone(),
        cause: match context.cause {
            Cause::Build => wit::Cause::Build,
            Cause::FirstRequest => wit::Cause::FirstRequest,
            Cause::Stale => wit::Cause::Stale,
            Cause::OnDemand => wit::Cause::OnDemand,
            Cause::Draft => wit::Cause::Draft,
        },
    }
}

/// Checks what `static-props` returned.
pub(super) fn decision(outcome: wit::Outcome, limits: &Limits) -> Result<Decision, Stop> {
    match outcome {
        wit::Outcome::Props(returned) => props(returned, limits),
        wit::Outcome::NotFound(freshness) => {
            Ok(Decision::Done(Outcome::NotFound(lifetime(freshness)?)))
        }
        wit::Outcome::Redirect(redirect) => {
            let (location, status) =
                check_redirect(&redirect.location, redirect.status).map_err(Stop::invalid)?;
            Ok(Decision::Done(Outcome::Redirect {
                location,
                status,
                lifetime: lifetime(redirect.freshness)?,
            }))
        }
    }
}

fn props(returned: wit::Props, limits: &Limits) -> Result<Decision, Stop> {
    let wit::Props {
        data,
        freshness,
        tags,
    } = returned;
    within("props", "props", data.len(), limits.props)?;
    serde_json::from_str::<IgnoredAny>(&data)
        .map_err(|error| Stop::invalid(format!("its props are not JSON: {error}")))?;
    let props = Props {
        json: Bytes::from(whole_characters(data)),
        lifetime: lifetime(freshness)?,
    };
    let tags = Tag::all(&tags).map_err(Stop::invalid)?;
    Ok(Decision::Render(props, tags))
}

/// The tags that props have, and those that the guest gave by the way, checked.
pub(super) fn tags(props: Vec<Tag>, given: Given) -> Result<Vec<Tag>, Stop> {
    given.beside(props).map_err(Stop::invalid)
}

/// JSON whose escapes are characters: half a surrogate pair, which JSON may write (`"\ud83d"`) and
/// no text holds, becomes U+FFFD as on the web. Who reads the props, and `render` is one, may
/// refuse the whole of them otherwise (RFC 8259, section 8.2).
fn whole_characters(json: String) -> String {
    const ESCAPE: usize = r"\uXXXX".len();
    let unit = |at: usize| {
        let digits = json.get(at..at + ESCAPE)?.strip_prefix(r"\u")?;
        u32::from_str_radix(digits, 16).ok()
    };
    let mut whole = String::new();
    let mut from = 0;
    let mut at = 0;
    while let Some(found) = json[at..].find('\\') {
        at += found;
        at += match unit(at) {
            Some(0xD800..=0xDBFF) if matches!(unit(at + ESCAPE), Some(0xDC00..=0xDFFF)) => {
                2 * ESCAPE
            }
            Some(0xD800..=0xDFFF) => {
                whole.push_str(&json[from..at]);
                whole.push(char::REPLACEMENT_CHARACTER);
                from = at + ESCAPE;
                ESCAPE
            }
            // Another escape is two characters, both of one byte, and what follows is none.
            _ => 2,
        };
    }
    if from == 0 {
        return json;
    }
    whole.push_str(&json[from..]);
    whole
}

fn lifetime(freshness: wit::Freshness) -> Result<Lifetime, Stop> {
    match freshness {
        wit::Freshness::Inherit => Ok(Lifetime::Inherit),
        wit::Freshness::Never => Ok(Lifetime::Never),
        wit::Freshness::Seconds(0) => Err(Stop::invalid(
            "a page cannot stay fresh for 0 seconds: return at least 1, or `never` for a page \
             that only changes on demand",
        )),
        wit::Freshness::Seconds(seconds) => Ok(Lifetime::Seconds(seconds)),
    }
}

/// Checks what `render` or `shell` returned.
pub(super) fn document(returned: wit::Document, limits: &Limits) -> Result<Document, Stop> {
    let body = match returned.body {
        wit::Body::Text(text) => Bytes::from(text),
        wit::Body::Bytes(bytes) => Bytes::from(bytes),
    };
    within("page", "page", body.len(), limits.page)?;
    let headers = returned.headers.iter();
    let headers = headers.map(|(name, value)| (name.as_str(), value.as_bytes()));
    Document::check(returned.status, headers, body).map_err(|rejected| match rejected {
        Rejected::ServerError(_) => Stop::broken(FailureKind::ServerError, rejected),
        _ => Stop::invalid(rejected),
    })
}

/// What `static-paths` returned.
pub(super) fn path_list(returned: paths::PathList) -> PathList {
    let param = |param: wit::Param| Param {
        name: param.name,
        values: param.values,
    };
    let path = |params: Vec<wit::Param>| params.into_iter().map(param).collect();
    PathList {
        paths: returned.paths.into_iter().map(path).collect(),
        fallback: match returned.fallback {
            paths::Fallback::NotFound => Fallback::NotFound,
            paths::Fallback::Blocking => Fallback::Blocking,
            paths::Fallback::Shell => Fallback::Shell,
        },
    }
}

fn within(what: &str, name: &str, bytes: usize, limit: u64) -> Result<(), Stop> {
    let bytes = bytes as u64;
    if bytes <= limit {
        return Ok(());
    }
    Err(Stop::broken(
        FailureKind::Output,
        format!(
            "its {what} of {} is larger than {} (limit `{name}`)",
            size(bytes),
            size(limit)
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(outcome: wit::Outcome) -> Result<Decision, String> {
        decision(outcome, &Limits::default()).map_err(|stop| format!("{stop:?}"))
    }

    fn with(data: &str, freshness: wit::Freshness, tags: Vec<String>) -> wit::Outcome {
        wit::Outcome::Props(wit::Props {
            data: data.to_owned(),
            freshness,
            tags,
        })
    }

    #[test]
    fn what_breaks_a_rule_never_leaves() {
        let inherit = wit::Freshness::Inherit;
        assert!(decide(with("{}", inherit, vec!["a".to_owned()])).is_ok());
        for (outcome, words) in [
            (with("{", inherit, Vec::new()), "not JSON"),
            (
                with("{}", wit::Freshness::Seconds(0), Vec::new()),
                "at least 1",
            ),
            (with("{}", inherit, vec![String::new()]), "tag"),
            (
                wit::Outcome::NotFound(wit::Freshness::Seconds(0)),
                "at least 1",
            ),
            (
                wit::Outcome::Redirect(wit::Redirect {
                    location: "/".to_owned(),
                    status: 200,
                    freshness: inherit,
                }),
                "redirect",
            ),
        ] {
            let error = decide(outcome).err().unwrap();
            assert!(
                error.contains(words) && error.contains("Invalid"),
                "{error}"
            );
        }
    }

    #[test]
    fn escapes_of_half_a_pair_become_the_replacement_character() {
        for (written, whole) in [
            (r#""a\ud83d""#, "\"a\u{fffd}\""),
            (r#""\uDE00\ud83d""#, "\"\u{fffd}\u{fffd}\""),
            (r#""\ud83d\u0041""#, "\"\u{fffd}\\u0041\""),
            (r#"{"\ud83d":"é\udfff!"}"#, "{\"\u{fffd}\":\"é\u{fffd}!\"}"),
            (r#""\ud83d\uDE00\n\"""#, r#""\ud83d\uDE00\n\"""#),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\\\ud83d""#, "\"\\\\\u{fffd}\""),
        ] {
            let Ok(Decision::Render(props, _)) = decision(
                with(written, wit::Freshness::Inherit, Vec::new()),
                &Limits::default(),
            ) else {
                panic!("{written}");
            };
            assert_eq!(props.json, whole, "{written}");
        }
    }

    #[test]
    fn deeply_nested_props_are_json_too() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(decide(with(&deep, wit::Freshness::Never, Vec::new())).is_ok());
    }

    #[test]
    fn sizes_and_statuses_have_kinds_of_their_own() {
        let answer = |status, body: usize| wit::Document {
            status,
            headers: Vec::new(),
            body: wit::Body::Text("x".repeat(body)),
        };
        let limits = Limits {
            page: 3,
            ..Limits::default()
        };
        assert!(document(answer(200, 3), &limits).is_ok());
        let kind = |answer| match document(answer, &limits) {
            Err(Stop::Broken { kind, .. }) => kind,
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(answer(200, 4)), FailureKind::Output);
        assert_eq!(kind(answer(503, 1)), FailureKind::ServerError);
        assert_eq!(kind(answer(304, 1)), FailureKind::Invalid);
    }
}
