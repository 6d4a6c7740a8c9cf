//! `Views`: pages as one thread sends them.
//!
//! Whatever threads share of a page they contend for: the lock that it is found under, and the
//! reference counts of its entry, headers and body. So each serving thread keeps views of the
//! pages that it is asked for most, with heads and handles of bodies that are its own.
//!
//! A view never outlives what it shows: it is looked at only while the memory tier still has its
//! entry, and judged like the entry itself for each reader. Its heads hold as long as readers are
//! told the same, a second at most; the tier is then told that the page is in use.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use lru::LruCache;
use thread_local::ThreadLocal;

use super::body::Body;
use super::conditional::Verdict;
use super::lane::{self, Express};
use super::negotiate;
use super::respond::{Drawn, Face, Form, Reader};
use super::showing::{FRESH, HIT, Showing};
use crate::isr::{Hit, Isr, Served};
use crate::page::{Coding, Content, Entry, Page, PageKey, Timestamp};
use crate::store::{Kept, Tally};

/// Views of each thread: only the pages that several threads send at once are worth one.
const VIEWS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// Bytes of the heaviest entry that is kept in a view. A thread lets go of a replaced entry only
/// when it is next asked for the page, or others need the place: until then it may hold on to
/// `VIEWS` times this, 4 MiB, beyond `store.memory`.
const MAX_WEIGHT: usize = 64 * 1024;

/// Of so many answers without a view, one makes one: a page that is asked for often has it soon,
/// and one that is not seldom pays for what is looked at once.
const ONE_IN: u32 = 64;

/// What the headers of most hits say.
const COMMON: [&str; 5] = [
    "text/html; charset=utf-8",
    "accept-encoding",
    "public, max-age=0, s-maxage=31536000",
    FRESH,
    HIT,
];

/// The views of all threads.
pub(super) struct Views {
    own: ThreadLocal<RefCell<Own>>,
    one_in: u32,
}

/// The views of one thread, on cache lines that no other thread writes to.
#[repr(align(128))]
struct Own(LruCache<PageKey, View>);

/// One page.
struct View {
    kept: Arc<Kept>,
    tally: Tally,
    forms: Forms,
}

/// The forms in which a page was sent so far, with heads that tell the same.
#[derive(Default)]
struct Forms {
    told: Option<Told>,
    made: Vec<(Face, Coding, Arc<Made>)>,
}

/// A form, and its head as HTTP/1.1 writes it.
struct Made {
    form: Form,
    head: Bytes,
}

/// What the reader of a hit is to get.
enum Found {
    Whole(Response<Body>),
    Formed {
        status: StatusCode,
        made: Arc<Made>,
        verdict: Verdict,
    },
}

/// What the head of a hit tells beside what the entry says of itself, in whole seconds.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Told {
    age: u64,
    ttl: Option<u64>,
    max_stale: u64,
}

/// A request that has found its page.
pub(super) struct Asked<'a> {
    pub(super) isr: &'a Isr,
    pub(super) page: &'a Page,
    /// The canonical path, and the parameters of the query that the page allows.
    pub(super) path: &'a str,
    pub(super) query: &'a [(String, String)],
    pub(super) face: Face,
    pub(super) reader: Reader<'a>,
    pub(super) now: Timestamp,
}

impl Views {
    /// The answer, if the page is a hit.
    pub(super) fn answer(&self, asked: &Asked<'_>) -> Option<Response<Body>> {
        Some(self.find(asked)?.response(&asked.reader))
    }

    /// The same, ready to be sent.
    pub(super) fn express(&self, asked: &Asked<'_>) -> Option<Express> {
        Some(match self.find(asked)? {
            Found::Formed {
                status,
                made,
                verdict: Verdict::Send,
            } => Express {
                status,
                head: made.head.clone(),
                body: made.form.body.clone(),
                now: asked.now,
            },
            found => Express::of(found.response(&asked.reader), asked.now),
        })
    }

    fn find(&self, asked: &Asked<'_>) -> Option<Found> {
        let mut own = self.own.get_or_default().borrow_mut();
        if let Some(view) = own.0.get_mut(&*PageKey::text(asked.path, asked.query))
            && view.kept.is_current()
        {
            return view.find(asked);
        }
        let key = PageKey::new(asked.path, asked.query);
        let had_one = own.0.pop(&key).is_some();
        let kept = asked.isr.kept(&key)?;
        let makes_one = had_one || fastrand::u32(..self.one_in) == 0;
        if !makes_one || kept.weight() > MAX_WEIGHT {
            let hit = asked.hit(kept.entry())?;
            kept.count_hit();
            return asked.plainly(kept.entry(), hit);
        }
        let mut view = View::of(kept);
        let found = view.find(asked);
        own.0.put(key, view);
        found
    }
}

impl Default for Views {
    fn default() -> Self {
        Self {
            own: ThreadLocal::new(),
            one_in: ONE_IN,
        }
    }
}

impl Default for Own {
    fn default() -> Self {
        Self(LruCache::new(VIEWS))
    }
}

impl View {
    fn of(kept: Arc<Kept>) -> Self {
        Self {
            tally: kept.tally(),
            kept,
            forms: Forms::default(),
        }
    }

    fn find(&mut self, asked: &Asked<'_>) -> Option<Found> {
        let entry = self.kept.entry();
        let hit = asked.hit(entry)?;
        self.tally.count();
        let Some(drawn) = Drawn::of(entry, asked.face) else {
            return asked.plainly(entry, hit);
        };
        if self.forms.renew(asked.told(entry, hit)) {
            // The tier must not take for unused what is found here.
            asked.isr.kept(&entry.key);
        }
        let variant = negotiate::choose(asked.reader.headers, drawn.body);
        let made = self.forms.get(asked.face, variant.coding, || {
            asked.show(entry, hit, |showing| {
                let headers = packed(showing.head(drawn.headers, variant));
                let head = lane::head(drawn.status, &headers);
                // A reference count of its own, over what is shared.
                let body = Bytes::from_owner(variant.body.clone());
                let form = Form { headers, body };
                Made { form, head }
            })
        })?;
        let (status, generated) = (drawn.status, entry.stamp.generated);
        Some(Found::Formed {
            status,
            made,
            verdict: asked.reader.judge(status, generated, variant),
        })
    }
}

impl Found {
    fn response(self, reader: &Reader<'_>) -> Response<Body> {
        match self {
            Self::Whole(response) => response,
            Self::Formed {
                status,
                made,
                verdict,
            } => reader.formed(status, made.form.clone(), verdict),
        }
    }
}

impl Forms {
    /// Forgets the forms that tell something else; whether there were any.
    fn renew(&mut self, told: Told) -> bool {
        if self.told == Some(told) {
            return false;
        }
        self.made.clear();
        self.told.replace(told).is_some()
    }

    fn get(
        &mut self,
        face: Face,
        coding: Coding,
        make: impl FnOnce() -> Option<Made>,
    ) -> Option<Arc<Made>> {
        let is_it = |made: &&(Face, Coding, Arc<Made>)| (made.0, made.1) == (face, coding);
        if let Some((.., made)) = self.made.iter().find(is_it) {
            return Some(Arc::clone(made));
        }
        let made = Arc::new(make()?);
        self.made.push((face, coding, Arc::clone(&made)));
        Some(made)
    }
}

impl Asked<'_> {
    /// The answer with an entry that was fetched, if it is a hit, ready to be sent.
    pub(super) fn express(&self, entry: &Arc<Entry>) -> Option<Express> {
        let found = self.plainly(entry, self.hit(entry)?)?;
        Some(Express::of(found.response(&self.reader), self.now))
    }

    /// None if the page is no hit, or is shown as the site's 404 page, which must be fetched.
    fn hit(&self, entry: &Entry) -> Option<Hit> {
        if self.face == Face::Page && matches!(entry.content, Content::NotFound) {
            return None;
        }
        self.isr.hit(self.page, entry, self.now)
    }

    fn plainly(&self, entry: &Arc<Entry>, hit: Hit) -> Option<Found> {
        let response = self.show(entry, hit, |showing| match self.face {
            Face::Page => self.reader.page(showing, None),
            Face::Data => self.reader.data(showing),
        });
        response.map(Found::Whole)
    }

    fn max_stale(&self) -> Duration {
        self.page.policy.max_stale
    }

    fn told(&self, entry: &Entry, hit: Hit) -> Told {
        Told {
            age: self.now.since(entry.stamp.generated).as_secs(),
            ttl: hit.ttl.map(|ttl| ttl.as_secs()),
            max_stale: self.max_stale().as_secs(),
        }
    }

    fn show<T>(
        &self,
        entry: &Arc<Entry>,
        hit: Hit,
        make: impl FnOnce(&Showing<'_>) -> T,
    ) -> Option<T> {
        let served = Served::Hit {
            entry: Arc::clone(entry),
            ttl: hit.ttl,
        };
        Showing::of(&served, self.now, self.max_stale()).map(|showing| make(&showing))
    }
}

/// The same headers, cheap to copy: a value that nearly every page has becomes a constant, and the
/// others share one piece of memory with a reference count of its own.
fn packed(mut headers: HeaderMap) -> HeaderMap {
    let texts: Vec<&[u8]> = headers.values().map(HeaderValue::as_bytes).collect();
    let mut texts = Bytes::from(texts.concat());
    for value in headers.values_mut() {
        let text = texts.split_to(value.len());
        let packed = match COMMON.into_iter().find(|common| *common == text) {
            Some(common) => Ok(HeaderValue::from_static(common)),
            None => HeaderValue::from_maybe_shared(text),
        };
        // They were header values before.
        if let Ok(packed) = packed {
            *value = packed;
        }
    }
    headers
}

#[cfg(test)]
#[path = "views_tests.rs"]
mod tests;
