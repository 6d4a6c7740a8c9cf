//! [`Document`]: the rendered page, as it goes to the reader.

/// The content of a document: text for most pages, bytes for an image or an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// UTF-8 text.
    Text(String),
    /// Anything else.
    Bytes(Vec<u8>),
}

impl Body {
    /// The content as bytes, whichever kind it is.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.into_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Body {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<&[u8]> for Body {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

/// The rendered page: status, headers and body.
///
/// ```
/// use wisr_guest::Document;
/// let page = Document::html("<!doctype html><title>Hello</title>");
/// let feed = Document::new("application/atom+xml", "<feed/>").header("link", "</>; rel=self");
/// assert_eq!(page.header_value("content-type"), Some("text/html; charset=utf-8"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Document {
    /// The HTTP status. A 5xx is a failure: it never replaces the last good page.
    pub status: u16,
    /// The headers in order; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The content.
    pub body: Body,
}

impl Document {
    /// An HTML page in UTF-8, with status 200.
    pub fn html(body: impl Into<String>) -> Self {
        Self::new("text/html; charset=utf-8", body.into())
    }

    /// A document of any type, with status 200.
    pub fn new(content_type: impl Into<String>, body: impl Into<Body>) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type".to_owned(), content_type.into())],
            body: body.into(),
        }
    }

    /// Sets the HTTP status.
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Adds a header, except that `content-type` replaces the one before: a document has one type.
    ///
    /// The host checks names and values: `set-cookie`, framing headers, `cache-control: private`
    /// and the like fail the page, since a cached page is for everybody.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into().to_ascii_lowercase();
        if name == "content-type" {
            self.headers.retain(|(known, _)| *known != name);
        }
        self.headers.push((name, value.into()));
        self
    }

    /// The first value of a header.
    #[must_use]
    pub fn header_value(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body, when it is text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.body {
            Body::Text(text) => Some(text),
            Body::Bytes(_) => None,
        }
    }
}

/// What a reader sees while the page is being made, unless the page brings its own.
// It reloads by itself: the host starts making the page together with the shell, and a page
// without scripts has no other way to find out that it is done.
pub(crate) fn loading() -> Document {
    Document::html(concat!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">",
        "<meta name=\"viewport\" content=\"width=device-width\">",
        "<meta name=\"robots\" content=\"noindex\">",
        "<meta name=\"color-scheme\" content=\"light dark\">",
        "<meta http-equiv=\"refresh\" content=\"1\">",
        "<title>Loading…</title></head>",
        "<body><main><p role=\"status\">This page is being made. It shows by itself in a moment.</p>",
        "<p><a href=\"\">Show it now</a></p></main></body></html>",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_is_utf8() {
        let page = Document::html("<p>");
        assert_eq!(page.status, 200);
        assert_eq!(
            page.headers,
            [(
                "content-type".to_owned(),
                "text/html; charset=utf-8".to_owned()
            )]
        );
        assert_eq!(page.text(), Some("<p>"));
    }

    #[test]
    fn headers_add_up_but_the_type_is_one() {
        let page = Document::new("a/b", vec![1, 2])
            .header("Link", "x")
            .header("link", "y")
            .header("Content-Type", "c/d")
            .status(404);
        let headers: Vec<_> = page
            .headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        assert_eq!(
            headers,
            [("link", "x"), ("link", "y"), ("content-type", "c/d")]
        );
        assert_eq!(
            (page.status, page.text(), page.body.as_bytes()),
            (404, None, &[1, 2][..])
        );
    }

    #[test]
    fn the_shell_reloads_itself_and_is_not_indexed() {
        let shell = loading();
        let text = shell.text().unwrap();
        assert!(
            text.contains("http-equiv=\"refresh\"") && text.contains("noindex"),
            "{text}"
        );
        assert!(
            text.contains("lang=\"en\"") && text.contains("<title>"),
            "{text}"
        );
    }
}
