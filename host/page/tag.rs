//! `Tag`: a word for what a page was made from, by which pages are invalidated together.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

/// Bytes in a tag; the figure that Next.js documents.
const MAX_TAG: usize = 256;

/// Tags on one page; the figure that Next.js documents.
const MAX_TAGS: usize = 128;

/// A tag: 1 to 256 bytes without control characters. Cloning costs a reference count.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Tag(Arc<str>);

/// Tags that a page gives one by one while it is made: bounded, however many it gives.
#[derive(Debug, Default)]
pub struct Given {
    tags: Vec<Tag>,
    /// The first that was none.
    wrong: Option<TagError>,
}

/// Why something is not a tag, or not a set of tags.
#[derive(Debug, thiserror::Error)]
pub enum TagError {
    /// Its length is out of bounds.
    #[error("a tag of {0} bytes: a tag has 1 to {MAX_TAG}")]
    Length(usize),
    /// It would not survive a log line or a header.
    #[error("tag {0:?} has a control character")]
    Control(String),
    /// A page has too many; so many at least.
    #[error("{0} tags: a page has at most {MAX_TAGS}")]
    TooMany(usize),
}

impl Tag {
    /// Checks `text`.
    ///
    /// # Errors
    /// When it is empty, too long, or has control characters.
    pub fn new(text: &str) -> Result<Self, TagError> {
        if text.is_empty() || text.len() > MAX_TAG {
            return Err(TagError::Length(text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(TagError::Control(text.to_owned()));
        }
        Ok(Self(Arc::from(text)))
    }

    /// Checks the tags of one page.
    ///
    /// # Errors
    /// When there are too many, or the first that is not a tag.
    pub fn all(texts: &[String]) -> Result<Vec<Self>, TagError> {
        if texts.len() > MAX_TAGS {
            return Err(TagError::TooMany(texts.len()));
        }
        texts.iter().map(|text| Self::new(text)).collect()
    }

    /// The tags of what took the place of something with the tags `before`, and keeps them: so many
    /// as a page has at most, and as many of its own. Those that were kept longest come first, so
    /// that they stay however often the others change.
    pub fn beside(own: Vec<Self>, before: &[Self]) -> Vec<Self> {
        let kept = before.iter().filter(|tag| !own.contains(tag));
        let mut all: Vec<Self> = kept.take(MAX_TAGS).cloned().collect();
        all.extend(own);
        all
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Given {
    /// One more. What is wrong with it is told at the end; of the surplus nothing is kept.
    pub fn add(&mut self, text: &str) {
        if self.wrong.is_some() {
            return;
        }
        match Tag::new(text) {
            Ok(tag) if self.tags.contains(&tag) => {}
            Ok(_) if self.tags.len() >= MAX_TAGS => {
                self.wrong = Some(TagError::TooMany(MAX_TAGS + 1));
            }
            Ok(tag) => self.tags.push(tag),
            Err(wrong) => self.wrong = Some(wrong),
        }
    }

    /// The tags of the page: those that its props have, and these. One given twice counts once.
    ///
    /// # Errors
    /// When there are too many in all, or the first that is not a tag.
    pub fn beside(self, props: Vec<Tag>) -> Result<Vec<Tag>, TagError> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let mut all = props;
        for tag in self.tags {
            if !all.contains(&tag) {
                all.push(tag);
            }
        }
        if all.len() > MAX_TAGS {
            return Err(TagError::TooMany(all.len()));
        }
        Ok(all)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(texts: impl IntoIterator<Item = String>) -> Given {
        let mut given = Given::default();
        texts.into_iter().for_each(|text| given.add(&text));
        given
    }

    fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
        range.map(|number| number.to_string()).collect()
    }

    #[test]
    fn props_and_what_is_given_by_the_way_have_one_bound() {
        let all =
            |texts: &[String], given: Given| given.beside(Tag::all(texts)?).map(|tags| tags.len());
        let half = numbers(0..MAX_TAGS / 2);
        assert_eq!(all(&half, given(half.clone())).unwrap(), half.len());
        assert_eq!(all(&half, given(numbers(0..MAX_TAGS))).unwrap(), MAX_TAGS);
        for (texts, more) in [
            (numbers(0..MAX_TAGS + 1), Vec::new()),
            (Vec::new(), numbers(0..1_000_000)),
            (half, numbers(1..MAX_TAGS + 1)),
        ] {
            let given = given(more);
            assert!(given.tags.len() <= MAX_TAGS);
            assert!(matches!(all(&texts, given), Err(TagError::TooMany(_))));
        }
        let tags = |range| Tag::all(&numbers(range)).unwrap();
        let mut kept = tags(0..MAX_TAGS);
        for round in 1..9 {
            kept = Tag::beside(tags(round * 1_000..round * 1_000 + MAX_TAGS), &kept);
            assert_eq!(kept.len(), 2 * MAX_TAGS);
            assert_eq!(kept[..MAX_TAGS], tags(0..MAX_TAGS)[..]);
        }
        for wrong in ["", "a\nb", &"x".repeat(MAX_TAG + 1)] {
            let given = given(["a".to_owned(), wrong.to_owned(), "b".to_owned()]);
            assert!(all(&[], given).is_err(), "{wrong:?}");
        }
    }
}
