//! What all pages of Slack Water share. A folder whose name begins with `_` is not a route.
//!
//! - [`Frame`]: the document round a page: head, masthead, navigation, footer
//! - [`content`]: the client of the content API
//! - [`markdown`]: Markdown to HTML
//! - [`parts`]: what appears on several pages, such as a list of articles
//! - [`moon`]: what the moon looked like on a date

pub mod content;
mod date;
mod frame;
pub mod markdown;
pub mod moon;
pub mod parts;

pub use date::Date;
pub use frame::{Frame, SITE, absolute};
