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

/// Why something is not a tag, or not a set of tags.
#[derive(Debug, thiserror::Error)]
pub enum TagError {
    /// Its length is out of bounds.
    #[error("a tag of {0} bytes: a tag has 1 to {MAX_TAG}")]
    Length(usize),
    /// It would not survive a log line or a header.
    #[error("tag {0:?} has a control character")]
    Control(String),
    /// A page has too many.
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

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
