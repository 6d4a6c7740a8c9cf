//! `Item`: one Markdown file with its front matter, as the content API hands it out.

use std::cmp::Ordering;

use serde_json::{Map, Value};

/// What opens and closes the front matter.
const FENCE: &str = "+++";

/// One file, read and understood.
#[derive(Debug, Clone)]
pub(super) struct Item {
    id: String,
    matter: toml::Table,
    body: String,
}

/// What is wrong with a file, and in which of its lines.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct ItemError {
    file: String,
    line: usize,
    message: String,
}

impl Item {
    /// Reads the text of `file`, which has the given id in its collection.
    ///
    /// # Errors
    /// Front matter that is not closed, is not TOML, or sets what the file's name and text set.
    pub(super) fn parse(file: &str, id: &str, text: &str) -> Result<Self, ItemError> {
        let fail = |line, message: String| ItemError {
            file: file.to_owned(),
            line,
            message,
        };
        let (matter, body) = split(text).ok_or_else(|| {
            let message = "the front matter is not closed: end it with a line `+++`";
            fail(1, message.to_owned())
        })?;
        let table: toml::Table = matter.parse().map_err(|error: toml::de::Error| {
            let offset = error.span().map_or(0, |span| span.start);
            let before = matter.as_bytes().get(..offset).unwrap_or_default();
            // The fence is line 1, so the first line of the front matter is line 2.
            let line = 2 + before.iter().filter(|byte| **byte == b'\n').count();
            fail(line, error.message().to_owned())
        })?;
        if let Some(key) = ["id", "body"].iter().find(|key| table.contains_key(**key)) {
            let message = format!("`{key}` comes from the file itself: remove the key");
            return Err(fail(line_of(text, key), message));
        }
        Ok(Self {
            id: id.to_owned(),
            matter: table,
            body: body.to_owned(),
        })
    }

    /// Whether it is not to be served yet.
    pub(super) fn draft(&self) -> bool {
        self.matter.get("draft").and_then(toml::Value::as_bool) == Some(true)
    }

    /// Everything but the text.
    pub(super) fn summary(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("id".to_owned(), Value::String(self.id.clone()));
        for (key, value) in &self.matter {
            fields.insert(key.clone(), json(value));
        }
        fields
    }

    /// Everything.
    pub(super) fn whole(&self) -> Map<String, Value> {
        let mut fields = self.summary();
        fields.insert("body".to_owned(), Value::String(self.body.clone()));
        fields
    }

    /// `order` ascending, where there is one; then the newest first; then by id.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        let (order, others) = (self.order(), other.order());
        let by_order = match (order, others) {
            (Some(order), Some(others)) => order.total_cmp(&others),
            _ => others.is_some().cmp(&order.is_some()),
        };
        by_order
            .then_with(|| other.date().cmp(&self.date()))
            .then_with(|| self.id.cmp(&other.id))
    }

    fn order(&self) -> Option<f64> {
        match self.matter.get("order")? {
            toml::Value::Float(order) => Some(*order),
            #[expect(
                clippy::cast_precision_loss,
                reason = "nobody numbers 2^53 articles by hand"
            )]
            toml::Value::Integer(order) => Some(*order as f64),
            _ => None,
        }
    }

    /// ISO 8601 dates of one form sort as text.
    fn date(&self) -> String {
        match self.matter.get("date") {
            Some(toml::Value::Datetime(date)) => date.to_string(),
            Some(toml::Value::String(date)) => date.clone(),
            _ => String::new(),
        }
    }
}

/// Front matter and text; `None` when the front matter has no end.
fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.split_inclusive('\n');
    let first = lines.next().unwrap_or_default();
    if first.trim_end() != FENCE {
        return Some(("", text));
    }
    let start = first.len();
    let mut end = start;
    for line in lines {
        if line.trim_end() == FENCE {
            return Some((&text[start..end], &text[end + line.len()..]));
        }
        end += line.len();
    }
    None
}

fn line_of(text: &str, key: &str) -> usize {
    let sets = |line: &str| {
        line.trim_start()
            .strip_prefix(key)
            .is_some_and(|rest| rest.trim_start().starts_with(['=', '.']))
    };
    text.lines().position(sets).map_or(1, |index| index + 1)
}

/// TOML as JSON: a date becomes its text; an infinite or undefined number becomes null.
fn json(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text.clone()),
        toml::Value::Integer(number) => Value::from(*number),
        toml::Value::Float(number) => Value::from(*number),
        toml::Value::Boolean(truth) => Value::Bool(*truth),
        toml::Value::Datetime(date) => Value::String(date.to_string()),
        toml::Value::Array(items) => items.iter().map(json).collect(),
        toml::Value::Table(table) => table
            .iter()
            .map(|(key, value)| (key.clone(), json(value)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: &str, text: &str) -> Item {
        Item::parse("posts/x.md", id, text).unwrap()
    }

    fn error(text: &str) -> String {
        Item::parse("posts/x.md", "x", text)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn front_matter_becomes_fields_and_the_rest_the_body() {
        let text = "\u{feff}+++\r\ntitle = \"A\"\r\ndate = 2026-11-02\r\nn = [1, 2.5]\r\n+++\r\nHello\n+++\nmore";
        let whole = Value::Object(item("a/b", text).whole());
        let expected = serde_json::json!({
            "id": "a/b", "title": "A", "date": "2026-11-02", "n": [1, 2.5], "body": "Hello\n+++\nmore",
        });
        assert_eq!(whole, expected);
        assert!(!item("x", text).summary().contains_key("body"));
    }

    #[test]
    fn a_file_without_front_matter_is_all_body() {
        let whole = Value::Object(item("x", "# Hi\n").whole());
        assert_eq!(whole, serde_json::json!({"id": "x", "body": "# Hi\n"}));
        assert_eq!(item("x", "+++\n+++").whole()["body"], "");
    }

    #[test]
    fn errors_name_the_file_and_the_line() {
        assert!(error("+++\ntitle = \"A\"\ndate = = 3\n+++\n").starts_with("posts/x.md:3: "));
        assert!(error("+++\na = 1\n").contains(":1: the front matter is not closed"));
        assert!(error("+++\na = 1\nbody = \"x\"\n+++\n").contains(":3: `body` comes from"));
    }

    #[test]
    fn order_first_then_the_newest_then_the_id() {
        let texts = [
            ("c", "+++\ndate = 2026-01-01\n+++\n"),
            ("b", "+++\ndate = \"2026-02-01\"\n+++\n"),
            ("a", "+++\ndate = 2026-01-01\n+++\n"),
            ("z", "+++\norder = 2\n+++\n"),
            ("y", "+++\norder = 1.5\n+++\n"),
            ("d", ""),
        ];
        let mut items: Vec<_> = texts.iter().map(|(id, text)| item(id, text)).collect();
        items.sort_by(Item::compare);
        let ids: Vec<_> = items.iter().map(|item| item.id.as_str()).collect();
        assert_eq!(ids, ["y", "z", "b", "a", "c", "d"]);
    }

    #[test]
    fn only_true_is_a_draft() {
        assert!(item("x", "+++\ndraft = true\n+++\n").draft());
        assert!(!item("x", "+++\ndraft = false\n+++\n").draft());
        assert!(!item("x", "draft = true").draft());
    }
}
