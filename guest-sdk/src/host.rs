//! [`setting`] and the one place that tells the sandbox from a native test.

/// A setting of this route, from the server's configuration; `None` when it is not set.
///
/// ```
/// # fn example() -> wisr_guest::Result<String> {
/// let content = wisr_guest::setting("content").unwrap_or("https://example.org".into());
/// let posts = wisr_guest::fetch::get(format!("{content}/posts"))?.text()?;
/// # Ok(posts) }
/// ```
#[must_use]
pub fn setting(key: &str) -> Option<String> {
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::wisr::page::host::setting(key);
    #[cfg(not(target_arch = "wasm32"))]
    return crate::testing::setting(key);
}
