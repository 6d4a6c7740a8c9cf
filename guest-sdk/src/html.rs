//! [`escape`]: text that came from elsewhere, made safe to put into HTML.

/// Escapes `& < > " '`, so that text can stand in an element or in a quoted attribute.
///
/// ```
/// let name = "<script>";
/// assert_eq!(format!("<p>{}", wisr_guest::html::escape(name)), "<p>&lt;script&gt;");
/// ```
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_html_reads_as_markup_is_escaped_and_nothing_else() {
        assert_eq!(
            super::escape("a&b<c>\"d\"'é"),
            "a&amp;b&lt;c&gt;&quot;d&quot;&#39;é"
        );
    }
}
