//! `Head`: the headers of a hit, made once.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

/// The headers of a hit, made for the first one: a third of what a hit costs beyond the kernel
/// is making headers, and all but `age` and `cache-status` say the same every time.
#[derive(Debug, Default)]
pub struct Head(OnceLock<Template>);

/// Headers to be copied. A copy has its values in a piece of memory of its own: cloned ones would
/// have all cores that serve the page contend for their reference counts.
#[derive(Debug)]
struct Template {
    max_stale: Duration,
    /// The names, with empty values.
    names: HeaderMap,
    /// All values in the order of the names, and where each ends.
    values: Box<[u8]>,
    ends: Box<[usize]>,
}

impl Head {
    /// What `make` makes, or made before under the same `max_stale`.
    pub fn get(&self, max_stale: Duration, make: impl FnOnce() -> HeaderMap) -> HeaderMap {
        match self.0.get() {
            Some(template) if template.max_stale == max_stale => template.copy(),
            Some(_) => make(),
            None => {
                let head = make();
                let _ = self.0.set(Template::of(&head, max_stale));
                head
            }
        }
    }
}

impl Clone for Head {
    /// A copy of a body is for another entry, whose dates are others.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Template {
    fn of(head: &HeaderMap, max_stale: Duration) -> Self {
        let (mut names, mut values) = (head.clone(), Vec::new());
        let mut ends = Vec::with_capacity(head.len());
        for value in names.values_mut() {
            values.extend_from_slice(value.as_bytes());
            ends.push(values.len());
            *value = HeaderValue::from_static("");
        }
        let (values, ends) = (values.into(), ends.into());
        Self {
            max_stale,
            names,
            values,
            ends,
        }
    }

    fn copy(&self) -> HeaderMap {
        let (mut head, values) = (self.names.clone(), Bytes::copy_from_slice(&self.values));
        let mut start = 0;
        for (value, end) in head.values_mut().zip(&self.ends) {
            // They were header values before.
            if let Ok(same) = HeaderValue::from_maybe_shared(values.slice(start..*end)) {
                *value = same;
            }
            start = *end;
        }
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_head_is_what_was_made() {
        let mut made = HeaderMap::new();
        made.insert("etag", HeaderValue::from_static("\"a\""));
        made.append("link", HeaderValue::from_static("</a>; rel=preload"));
        made.append("link", HeaderValue::from_static("</b>; rel=preload"));
        made.insert("x-empty", HeaderValue::from_static(""));
        let head = Head::default();
        let year = Duration::from_secs(31_536_000);
        for _ in 0..3 {
            assert_eq!(head.get(year, || made.clone()), made);
        }
        assert_eq!(head.get(year, HeaderMap::new), made);
        assert!(head.get(Duration::ZERO, HeaderMap::new).is_empty());
        assert!(head.clone().get(year, HeaderMap::new).is_empty());
    }
}
