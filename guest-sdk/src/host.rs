//! [`setting`], [`tag`] and the one place that tells the sandbox from a native test.

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

/// Tags what is being made, whatever comes of it: a page, a 404 or a redirect. Revalidating the tag
/// revalidates it. The same as [`StaticProps::tag`](crate::StaticProps::tag), from wherever the data
/// is read, `render` included; a page has 128 tags at most, each of 1 to 256 bytes.
///
/// ```
/// # fn example(id: &str) -> wisr_guest::Result<String> {
/// wisr_guest::tag(&format!("post-{id}"));
/// let post = wisr_guest::fetch::get(format!("https://example.org/posts/{id}"))?.text()?;
/// # Ok(post) }
/// ```
pub fn tag(name: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::bindings::wisr::page::host::tag(name);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::tag(name);
}
