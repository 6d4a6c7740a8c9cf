//! [`Error`]: why a page could not be made, in words for the person who reads the incident.

use std::error::Error as StdError;
use std::fmt;

/// What a page returns: a value, or the reason why there is none.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a page could not be made. The last good page stays up, and the host shows the message.
///
/// Any standard error turns into it by `?`; [`Error::msg`] and [`bail!`](crate::bail) make one
/// from words. It shows as the message followed by its causes: `reading the post: timed out`.
///
/// ```
/// fn year(text: &str) -> wisr_guest::Result<u16> {
///     if text.is_empty() {
///         wisr_guest::bail!("the post has no year");
///     }
///     Ok(text.parse()?)
/// }
/// assert_eq!(year("").unwrap_err().to_string(), "the post has no year");
/// assert_eq!(year("x").unwrap_err().to_string(), "invalid digit found in string");
/// ```
// Not itself a `std::error::Error`: `From` any of those would then overlap with `From<T> for T`.
pub struct Error(Box<dyn StdError + Send + Sync>);

impl Error {
    /// An error from words, or from a boxed error that has no type of its own.
    ///
    /// ```
    /// let error = wisr_guest::Error::msg("the feed is empty");
    /// assert_eq!(error.to_string(), "the feed is empty");
    /// ```
    pub fn msg(message: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self(message.into())
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        out.write_str(&said)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let message = error.to_string();
            // Many errors already repeat their cause in their own message.
            if !said.contains(&message) {
                write!(out, ": {message}")?;
                said = message;
            }
            cause = error.source();
        }
        Ok(())
    }
}

// `fn main() -> Result<..>` and `unwrap` in a test print this: words are worth more than a struct.
impl fmt::Debug for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Returns from the function with an [`Error`] made of a format string.
///
/// ```
/// # fn check(posts: &[String]) -> wisr_guest::Result<()> {
/// if posts.is_empty() {
///     wisr_guest::bail!("{} posts are too few", posts.len());
/// }
/// # Ok(()) }
/// # assert_eq!(check(&[]).unwrap_err().to_string(), "0 posts are too few");
/// ```
#[macro_export]
macro_rules! bail {
    ($($message:tt)+) => {
        return ::core::result::Result::Err(
            $crate::Error::msg(::std::format!($($message)+)).into(),
        )
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Link(&'static str, Option<Box<Link>>);

    impl fmt::Display for Link {
        fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str(self.0)
        }
    }

    impl StdError for Link {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            self.1.as_deref().map(|link| link as _)
        }
    }

    fn chain(messages: &[&'static str]) -> Error {
        let link = messages
            .iter()
            .rev()
            .fold(None, |cause, message| Some(Box::new(Link(message, cause))));
        Error::from(*link.unwrap())
    }

    #[test]
    fn the_message_is_followed_by_its_causes() {
        assert_eq!(
            chain(&["the post", "the feed", "timed out"]).to_string(),
            "the post: the feed: timed out"
        );
    }

    #[test]
    fn a_cause_that_the_message_repeats_is_said_once() {
        assert_eq!(
            chain(&["the feed: timed out", "timed out"]).to_string(),
            "the feed: timed out"
        );
    }

    #[test]
    fn a_boxed_error_keeps_its_causes() {
        let boxed: Box<dyn StdError + Send + Sync> =
            Box::new(Link("top", Some(Box::new(Link("root", None)))));
        assert_eq!(Error::msg(boxed).to_string(), "top: root");
    }
}
