//! Lines in the server's log, each with the route and the generation that said it.
//!
//! ```
//! wisr_guest::log::info("the feed has 12 posts");
//! ```

#[derive(Clone, Copy, Debug)]
enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// Says something that matters only while chasing one problem.
pub fn trace(message: impl AsRef<str>) {
    log(Level::Trace, message.as_ref());
}

/// Says something that helps while writing the page.
pub fn debug(message: impl AsRef<str>) {
    log(Level::Debug, message.as_ref());
}

/// Says what the page did.
pub fn info(message: impl AsRef<str>) {
    log(Level::Info, message.as_ref());
}

/// Says that something is wrong although the page could be made.
pub fn warn(message: impl AsRef<str>) {
    log(Level::Warn, message.as_ref());
}

/// Says that something failed. To fail the page as well, return an [`Error`](crate::Error).
pub fn error(message: impl AsRef<str>) {
    log(Level::Error, message.as_ref());
}

#[cfg(target_arch = "wasm32")]
fn log(level: Level, message: &str) {
    use crate::bindings::wisr::page::host;
    let level = match level {
        Level::Trace => host::Level::Trace,
        Level::Debug => host::Level::Debug,
        Level::Info => host::Level::Info,
        Level::Warn => host::Level::Warn,
        Level::Error => host::Level::Error,
    };
    host::log(level, message);
}

#[cfg(not(target_arch = "wasm32"))]
#[expect(
    clippy::print_stderr,
    reason = "the test harness shows it with the test that failed"
)]
fn log(level: Level, message: &str) {
    eprintln!("{level:?}: {message}");
}
