//! `Event`: what the log of a site says, one after the other.

use redis::RedisResult;

use super::link::Link;
use super::names;
use crate::store::marks::{Mark, Told};

/// Events read at once: bounded, also after a long absence.
const AT_ONCE: usize = 256;

/// Fields as Redis sends them.
pub(super) type Fields = Vec<(String, Vec<u8>)>;

/// A stream's entry as Redis sends it: its ID and its fields.
type Raw = (String, Fields);

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Its count.
    pub(super) at: u64,
    /// The name of the one before it, where that is told.
    before: Option<String>,
    pub(super) kind: Kind,
}

/// How far the log was read. Counts alone do not say what they count: what a failover loses is
/// counted once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The count of the latest event.
    pub(super) at: u64,
    /// Its name.
    pub(super) last: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Something was invalidated.
    Raised {
        marks: Vec<Mark>,
        /// Pages that were replaced, and the counts up to which.
        replaced: Vec<(Mark, u64)>,
        /// Up to which everything is stale.
        floor: u64,
        /// The process that said it, and its latest number.
        origin: String,
        latest: u64,
    },
    /// Another history began.
    Founded { history: String },
}

impl Event {
    /// Where who has read it is.
    pub(super) fn place(&self) -> Place {
        let last = match &self.kind {
            Kind::Raised { origin, latest, .. } => format!("{origin}:{latest}"),
            Kind::Founded { history } => history.clone(),
        };
        Place { at: self.at, last }
    }

    /// Whether it is the next for who is at this place.
    pub(super) fn follows(&self, place: &Place) -> bool {
        let is_named = |before: &String| *before == place.last;
        self.at == place.at + 1 && self.before.as_ref().is_none_or(is_named)
    }

    /// What an event tells a process, which is `own`.
    pub(super) fn told(self, own: &str) -> Result<Told, String> {
        match self.kind {
            Kind::Founded { history } => Err(history),
            Kind::Raised {
                marks,
                replaced,
                floor,
                origin,
                latest,
            } => Ok(Told {
                marks: marks
                    .into_iter()
                    .map(|mark| (mark, self.at))
                    .chain(replaced)
                    .collect(),
                head: self.at,
                floor,
                latest: (origin == own).then_some(latest),
            }),
        }
    }

    fn of((id, fields): Raw) -> Option<Self> {
        let at = id.split_once('-')?.0.parse().ok()?;
        let (mut marks, mut replaced, mut floor, mut latest) = (Vec::new(), Vec::new(), 0, 0);
        let (mut origin, mut history, mut before) = (String::new(), None, None);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let number = |bytes: &[u8]| text(bytes).parse().unwrap_or(0);
        for (name, value) in &fields {
            match &**name {
                "m" => marks.extend(names::decode(value)),
                "r" => replaced.extend(names::decode_replaced(value)),
                "f" => floor = number(value),
                "l" => latest = number(value),
                "o" => origin = text(value),
                "h" => history = Some(text(value)),
                "p" => before = Some(text(value)),
                _ => {}
            }
        }
        let kind = match history {
            Some(history) => Kind::Founded { history },
            None => Kind::Raised {
                marks,
                replaced,
                floor,
                origin,
                latest,
            },
        };
        Some(Self { at, before, kind })
    }
}

/// The events after the `count`th, waited for at most `wait_ms` milliseconds.
pub(super) async fn after(
    link: &mut Link,
    log: &str,
    count: u64,
    wait_ms: Option<u64>,
) -> RedisResult<Vec<Event>> {
    let mut command = redis::cmd("XREAD");
    command.arg("COUNT").arg(AT_ONCE);
    if let Some(wait) = wait_ms {
        command.arg("BLOCK").arg(wait);
    }
    command.arg("STREAMS").arg(log).arg(format!("{count}-1"));
    let read: Option<Vec<(String, Vec<Raw>)>> = link.ask(&command).await?;
    let events = read.into_iter().flatten().flat_map(|(_, events)| events);
    Ok(events.filter_map(Event::of).collect())
}

/// The last events up to the `count`th, the latest first; and the count of the oldest that the log
/// has.
pub(super) async fn until(
    link: &mut Link,
    log: &str,
    count: u64,
) -> RedisResult<(Vec<Event>, Option<u64>)> {
    let mut range = async |verb: &str, from: &str, to: &str, limit: usize| {
        let mut command = redis::cmd(verb);
        command.arg(log).arg(from).arg(to).arg("COUNT").arg(limit);
        let read: Vec<Raw> = link.ask(&command).await?;
        let events = read.into_iter().filter_map(Event::of);
        RedisResult::Ok(events.collect::<Vec<Event>>())
    };
    let last = range("XREVRANGE", &format!("{count}-1"), "-", AT_ONCE).await?;
    let oldest = range("XRANGE", "-", "+", 1).await?;
    Ok((last, oldest.first().map(|event| event.at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::{PageKey, Tag};

    fn raw(fields: &[(&str, &[u8])]) -> Raw {
        let fields = fields.iter();
        let fields = fields.map(|(name, value)| ((*name).to_owned(), value.to_vec()));
        ("7-1".to_owned(), fields.collect())
    }

    #[test]
    fn events_are_what_other_hosts_of_this_version_write() {
        let news = Mark::Tag(Tag::new("news").unwrap());
        let event = Event::of(raw(&[
            ("o", b"me"),
            ("l", b"9"),
            ("m", b"tnews"),
            ("m", b"zlater"),
            ("r", b"5 /a"),
            ("r", b"later"),
            ("f", b"3"),
            ("later", b"x"),
        ]))
        .unwrap();
        let told = event.told("me").unwrap();
        let replaced = Mark::Replaced(PageKey::new("/a", &[]));
        assert_eq!(told.marks, [(news, 7), (replaced, 5)]);
        assert_eq!((told.head, told.floor, told.latest), (7, 3, Some(9)));
        let founded = Event::of(raw(&[("h", b"abc")])).unwrap();
        assert_eq!(founded.told("me").unwrap_err(), "abc");
    }

    #[test]
    fn an_event_follows_the_one_that_it_names() {
        let place = |at, last: &str| Place {
            at,
            last: last.to_owned(),
        };
        let event = |fields: &[(&str, &[u8])]| Event::of(raw(fields)).unwrap();
        let named = event(&[("o", b"me"), ("l", b"9"), ("p", b"you:3")]);
        assert_eq!(named.place(), place(7, "me:9"));
        assert!(named.follows(&place(6, "you:3")));
        for other in [place(6, "you:2"), place(5, "you:3"), place(7, "you:3")] {
            assert!(!named.follows(&other), "{other:?}");
        }
        let unnamed = event(&[("o", b"me"), ("l", b"9")]);
        assert!(unnamed.follows(&place(6, "you:3")) && !unnamed.follows(&place(5, "you:3")));
        assert_eq!(event(&[("h", b"abc")]).place(), place(7, "abc"));
    }

    #[test]
    fn only_its_own_word_is_told() {
        let event = Event::of(raw(&[("o", b"other"), ("l", b"9")])).unwrap();
        assert_eq!(event.told("me").unwrap().latest, None);
    }
}
