//! [`Page`]: what an author writes, and the two places where its props are JSON.

use std::any::type_name;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Context, Document, Error, Result, StaticPaths, StaticProps, document};

/// A page: data first, then HTML. Each call runs in a fresh sandbox, so nothing is remembered
/// between them except the props.
///
/// ```
/// use wisr_guest::{Context, Document, Page, Result, StaticProps};
///
/// struct Clock;
///
/// impl Page for Clock {
///     type Props = u64;
///
///     fn static_props(_: &Context) -> Result<StaticProps<u64>> {
///         let now = std::time::UNIX_EPOCH.elapsed()?.as_secs();
///         Ok(StaticProps::new(now).revalidate(10))
///     }
///
///     fn render(_: &Context, now: u64) -> Result<Document> {
///         Ok(Document::html(format!("<!doctype html><p>{now} seconds since 1970")))
///     }
/// }
///
/// wisr_guest::page!(Clock);
/// ```
pub trait Page {
    /// What `static_props` hands to `render`, and what `/_wisr/data/<path>.json` serves: readers can
    /// see it. `()` for a page without data.
    type Props: Serialize + DeserializeOwned;

    /// Which paths of a dynamic route are made ahead of time. The default lists none, and makes
    /// every page when it is first asked for.
    ///
    /// # Errors
    /// When the paths cannot be found out.
    fn static_paths() -> Result<StaticPaths> {
        Ok(StaticPaths::blocking())
    }

    /// Fetches what the page shows.
    ///
    /// # Errors
    /// When the data cannot be had; the last good page stays up.
    fn static_props(ctx: &Context) -> Result<StaticProps<Self::Props>>;

    /// Turns the props into a document.
    ///
    /// # Errors
    /// When the page cannot be rendered; the last good page stays up.
    fn render(ctx: &Context, props: Self::Props) -> Result<Document>;

    /// What a reader sees while the page is being made, under [`StaticPaths::shell`]. The default is
    /// a plain document that says so and reloads itself.
    ///
    /// # Errors
    /// When the shell cannot be rendered.
    fn shell(ctx: &Context) -> Result<Document> {
        let _ = ctx;
        Ok(document::loading())
    }
}

pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| {
        Error::msg(format!(
            "the props, {}, cannot be written as JSON: {error}",
            type_name::<T>()
        ))
    })
}

pub(crate) fn from_json<T: DeserializeOwned>(json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|error| {
        Error::msg(format!(
            "the props cannot be read back as {}: {error}",
            type_name::<T>()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn props_that_are_no_json_name_their_type() {
        let error = to_json(&BTreeMap::from([((1, 2), 3)]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("BTreeMap<(i32, i32), i32>") && error.contains("key must be"),
            "{error}"
        );
    }

    #[test]
    fn props_that_do_not_come_back_name_their_type() {
        let error = from_json::<u8>("300").unwrap_err().to_string();
        assert!(error.contains("as u8") && error.contains("300"), "{error}");
    }
}
