//! `Pointer`: a place in a payload (RFC 6901), where `*` stands for every item of an array.

use std::fmt;

use serde_json::Value;

/// A JSON pointer, with one thing more: `*` in the place of an array's index means all its items,
/// as in `/commits/*/id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pointer {
    written: String,
    tokens: Vec<String>,
}

impl Pointer {
    /// Reads a pointer.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(written: &str) -> Result<Self, String> {
        let Some(rest) = written.strip_prefix('/') else {
            return Err(format!(
                "{written:?} is no JSON pointer: it begins with `/`, as `/fields/slug/en-US`"
            ));
        };
        let unescaped = |token: &str| token.replace("~1", "/").replace("~0", "~");
        Ok(Self {
            written: written.to_owned(),
            tokens: rest.split('/').map(unescaped).collect(),
        })
    }

    /// All that is there: none where nothing is, one value, or those of several items.
    pub(super) fn select<'a>(&self, payload: &'a Value) -> Option<Vec<&'a Value>> {
        let mut places = vec![payload];
        for token in &self.tokens {
            let mut next = Vec::new();
            for place in places {
                match place {
                    Value::Array(items) if token == "*" => next.extend(items),
                    Value::Array(items) => next.push(items.get(index(token)?)?),
                    Value::Object(fields) => next.push(fields.get(token)?),
                    _ => return None,
                }
            }
            places = next;
        }
        Some(places)
    }
}

/// RFC 6901 section 4: an index has no leading zeros, and no sign.
fn index(token: &str) -> Option<usize> {
    let is_index = token == "0" || !token.starts_with(['0', '+']);
    is_index.then(|| token.parse().ok()).flatten()
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// A value in words, if it is one that has some: no object, no array, no `null`.
pub(super) fn words(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pointer_finds_what_rfc_6901_says() {
        let payload = json!({
            "a": {"b/c": 1, "d~e": [10, 20], "": "empty", "*": "star"},
            "items": [{"id": "x"}, {"id": "y"}],
            "none": null,
        });
        for (pointer, expected) in [
            ("/a/b~1c", Some(json!([1]))),
            ("/a/d~0e/1", Some(json!([20]))),
            ("/a/", Some(json!(["empty"]))),
            ("/a/*", Some(json!(["star"]))),
            ("/items/*/id", Some(json!(["x", "y"]))),
            ("/a/d~0e/*", Some(json!([10, 20]))),
            ("/none", Some(json!([null]))),
            ("/a/d~0e/01", None),
            ("/a/d~0e/+1", None),
            ("/a/d~0e/2", None),
            ("/items/*/other", None),
            ("/b", None),
            ("/none/x", None),
        ] {
            let found = Pointer::parse(pointer).unwrap();
            let found = found.select(&payload).map(|found| json!(found));
            assert_eq!(found, expected, "{pointer}");
        }
        assert!(Pointer::parse("a/b").is_err() && Pointer::parse("").is_err());
    }
}
