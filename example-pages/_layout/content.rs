//! The client of the content API: what it serves, and how it is asked.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wisr_guest::{Error, Result, fetch, setting};

use crate::Date;

/// What may stand unescaped in a path segment (RFC 3986, section 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// An article. Lists come without the body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Post {
    /// The name in the address.
    pub id: String,
    /// The headline.
    pub title: String,
    /// The day of publication.
    pub date: Date,
    /// One or two sentences for lists and previews.
    #[serde(default)]
    pub summary: String,
    /// Who wrote it.
    #[serde(default)]
    pub author: String,
    /// What it is about.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The id under which the article is found now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<String>,
    /// The text, in Markdown.
    #[serde(default)]
    pub body: String,
}

/// A page of the documentation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doc {
    /// The place below `/docs`, such as `guide/routes`.
    pub id: String,
    /// The headline.
    pub title: String,
    /// What the page is about, in a sentence.
    #[serde(default)]
    pub summary: String,
    /// The text, in Markdown.
    #[serde(default)]
    pub body: String,
}

/// Something that can be bought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// The name in the address, and of its drawing.
    pub id: String,
    /// What it is called.
    pub title: String,
    /// What it is, in a sentence.
    #[serde(default)]
    pub summary: String,
    /// The price with its currency, as it is shown.
    #[serde(default)]
    pub price: String,
    /// What it is made of.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The description, in Markdown.
    #[serde(default)]
    pub body: String,
}

/// All entries of a collection, in the API's order: articles newest first, the rest as on the shelf.
///
/// # Errors
/// When the API does not answer, or not in this shape.
pub fn list<T: DeserializeOwned>(collection: &str) -> Result<Vec<T>> {
    fetch::get(address(&[collection])?)?
        .error_for_status()?
        .json()
}

/// One entry with its body, or `None` when the API says that there is none.
///
/// # Errors
/// When the API does not answer, or not in this shape: that is not the same as "there is none".
pub fn find<T: DeserializeOwned>(collection: &str, id: &str) -> Result<Option<T>> {
    let mut segments = vec![collection];
    segments.extend(id.split('/'));
    // Ids come out of addresses that readers type: none may reach beyond its collection.
    if segments
        .iter()
        .any(|segment| matches!(*segment, "" | "." | ".."))
    {
        return Ok(None);
    }
    let response = fetch::get(address(&segments)?)?;
    if response.status() == 404 {
        return Ok(None);
    }
    Ok(Some(response.error_for_status()?.json()?))
}

/// The articles that are to be listed: one that has moved is listed at its new place only.
///
/// # Errors
/// As [`list`].
pub fn posts() -> Result<Vec<Post>> {
    let mut posts: Vec<Post> = list("posts")?;
    posts.retain(|post| post.moved.is_none());
    Ok(posts)
}

/// Text as one segment of an address.
#[must_use]
pub fn escape(segment: &str) -> String {
    utf8_percent_encode(segment, SEGMENT).to_string()
}

fn address(segments: &[&str]) -> Result<String> {
    let Some(mut address) = setting("content") else {
        return Err(Error::msg(
            "no content API: set `content` under [settings] in wisr.toml",
        ));
    };
    for segment in segments {
        address.push('/');
        address.push_str(&escape(segment));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wisr_guest::testing::Test;
    use wisr_guest::{Context, Document, Outcome, Page, StaticProps};

    struct Probe;

    impl Page for Probe {
        type Props = Doc;

        fn static_props(ctx: &Context) -> Result<StaticProps<Doc>> {
            let found = find("docs", &ctx.params("slug").join("/"))?;
            Ok(found.map_or_else(StaticProps::not_found, StaticProps::new))
        }

        fn render(_: &Context, doc: Doc) -> Result<Document> {
            Ok(Document::html(doc.title))
        }
    }

    fn at(path: &str) -> Test<Probe> {
        Test::at("/docs/[...slug]", path).setting("content", "http://content")
    }

    #[test]
    fn an_entry_is_asked_for_below_its_collection() {
        let found = r#"{"id":"a b/c","title":"Found"}"#;
        let page = at("/docs/a%20b/c").fetch("http://content/docs/a%20b/c", 200, found);
        assert_eq!(page.render().unwrap().text(), "Found");
    }

    #[test]
    fn an_id_cannot_climb_out_of_its_collection() {
        for path in ["/docs/..%2Fposts%2Fx", "/docs/a/../b", "/docs/%2e%2e"] {
            assert_eq!(
                at(path).render().unwrap().outcome,
                Outcome::NotFound,
                "{path}"
            );
        }
    }

    #[test]
    fn no_answer_is_not_the_same_as_no_entry() {
        let missing = at("/docs/x").fetch("http://content/docs/x", 404, "{}");
        assert_eq!(missing.render().unwrap().outcome, Outcome::NotFound);
        let down = at("/docs/x").fetch("http://content/docs/x", 503, "{}");
        assert!(down.render().unwrap_err().to_string().contains("503"));
    }
}
