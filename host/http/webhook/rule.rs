//! `Rule`: which deliveries of a webhook mean which pages. Pure.

use http::header::{HeaderMap, HeaderName};
use serde_json::Value;

use super::pointer::{Pointer, words};
use super::template::{Kind, Template, Unmapped};
use crate::page::{Demand, Mode};

/// What deliveries of one kind mean.
#[derive(Debug, Clone)]
pub struct Rule {
    when: Vec<Condition>,
    paths: Vec<Template>,
    tags: Vec<Template>,
    mode: Option<Mode>,
}

/// What a delivery must say somewhere.
#[derive(Debug, Clone)]
struct Condition {
    place: Place,
    /// One of these words.
    words: Vec<String>,
}

#[derive(Debug, Clone)]
enum Place {
    Header(HeaderName),
    Payload(Pointer),
}

/// A rule as it is written.
#[derive(Debug, Clone, Default)]
pub struct RuleText<'a> {
    /// Headers and JSON pointers, and the words of which each must have one.
    pub when: Vec<(&'a str, Vec<String>)>,
    /// Paths with pointers in braces.
    pub paths: &'a [String],
    /// Tags with pointers in braces.
    pub tags: &'a [String],
    /// What is done with the pages.
    pub mode: Option<Mode>,
}

impl Rule {
    /// Reads a rule.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &RuleText<'_>) -> Result<Self, String> {
        if text.paths.is_empty() && text.tags.is_empty() {
            return Err("it names no `paths` and no `tags`".to_owned());
        }
        if text.mode == Some(Mode::Purge) && !text.tags.is_empty() {
            return Err(
                "mode = \"purge\" is for paths: tags can be made `stale` or regenerated".to_owned(),
            );
        }
        let all = |kind, texts: &[String]| -> Result<Vec<_>, String> {
            texts
                .iter()
                .map(|text| Template::parse(kind, text))
                .collect()
        };
        let conditions = text.when.iter();
        let conditions = conditions.map(|(place, words)| Condition::parse(place, words));
        Ok(Self {
            when: conditions.collect::<Result<_, _>>()?,
            paths: all(Kind::Path, text.paths)?,
            tags: all(Kind::Tag, text.tags)?,
            mode: text.mode,
        })
    }

    /// What a delivery demands by this rule; none if the rule is not for it.
    ///
    /// # Errors
    /// When the rule is for it and its payload lacks what the rule needs.
    pub(super) fn demand(
        &self,
        headers: &HeaderMap,
        payload: &Value,
    ) -> Result<Option<Demand>, Unmapped> {
        if !self
            .when
            .iter()
            .all(|condition| condition.holds(headers, payload))
        {
            return Ok(None);
        }
        let all = |templates: &[Template]| -> Result<Vec<String>, Unmapped> {
            let mut made = Vec::new();
            for template in templates {
                made.extend(template.expand(payload)?);
            }
            Ok(made)
        };
        Ok(Some(Demand {
            paths: all(&self.paths)?,
            tags: all(&self.tags)?,
            only_generated: false,
            mode: self.mode,
        }))
    }
}

impl Condition {
    fn parse(place: &str, words: &[String]) -> Result<Self, String> {
        let parsed = if place.starts_with('/') {
            Place::Payload(Pointer::parse(place)?)
        } else {
            Place::Header(place.parse().map_err(|_| {
                format!(
                    "when: {place:?} is neither a header's name nor a JSON pointer, which begins with `/`"
                )
            })?)
        };
        if words.is_empty() {
            return Err(format!("when: no value of {place:?} would do"));
        }
        Ok(Self {
            place: parsed,
            words: words.to_vec(),
        })
    }

    fn holds(&self, headers: &HeaderMap, payload: &Value) -> bool {
        let is_one = |said: &str| self.words.iter().any(|word| word == said);
        match &self.place {
            Place::Header(name) => {
                let said = headers.get(name).and_then(|value| value.to_str().ok());
                said.is_some_and(is_one)
            }
            Place::Payload(pointer) => {
                let said = pointer.select(payload).unwrap_or_default();
                said.into_iter().filter_map(words).any(|said| is_one(&said))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn rule(when: Vec<(&str, Vec<String>)>) -> Rule {
        let paths = &["/posts/{/id}".to_owned()];
        let text = RuleText {
            when,
            paths,
            ..RuleText::default()
        };
        Rule::parse(&text).unwrap()
    }

    fn one(word: &str) -> Vec<String> {
        vec![word.to_owned()]
    }

    #[test]
    fn a_rule_is_for_what_says_all_that_it_wants() {
        let payload = json!({"id": 7, "draft": false, "labels": [{"name": "a"}, {"name": "b"}]});
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("x-event"),
            HeaderValue::from_static("published"),
        )]);
        let event = || {
            (
                "X-Event",
                vec!["created".to_owned(), "published".to_owned()],
            )
        };
        for (when, expected) in [
            (vec![], true),
            (vec![event()], true),
            (
                vec![event(), ("/draft", one("false")), ("/id", one("7"))],
                true,
            ),
            (vec![("/labels/*/name", one("b"))], true),
            (vec![event(), ("/draft", one("true"))], false),
            (vec![("x-other", one("published"))], false),
            (vec![("/labels", one("a"))], false),
            (vec![("/missing/x", one(""))], false),
        ] {
            let told = rule(when.clone()).demand(&headers, &payload).unwrap();
            assert_eq!(told.is_some(), expected, "{when:?}");
            if let Some(demand) = told {
                assert_eq!(demand.paths, ["/posts/7"]);
            }
        }
    }

    #[test]
    fn a_rule_that_means_nothing_is_refused() {
        let [path, tag] = ["/a", "t"].map(|text| [text.to_owned()]);
        for (when, paths, tags, mode, part) in [
            (vec![], &[][..], &[][..], None, "no `paths`"),
            (vec![], &path, &tag, Some(Mode::Purge), "is for paths"),
            (
                vec![("a b", one("x"))],
                &path,
                &[],
                None,
                "neither a header",
            ),
            (vec![("/a", vec![])], &path, &[], None, "would do"),
        ] {
            let text = RuleText {
                when,
                paths,
                tags,
                mode,
            };
            let mistake = Rule::parse(&text).unwrap_err();
            assert!(mistake.contains(part), "{mistake}");
        }
    }
}
