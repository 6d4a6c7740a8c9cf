//! `Names`: the keys in Redis.
//!
//! | key | type | what |
//! |---|---|---|
//! | `wisr:1:SITE:p:{PAGE}` | hash | a page: records, count, time, token; expires |
//! | `wisr:1:SITE:l:{PAGE}` | hash | who makes it, until when, token; expires |
//! | `wisr:1:{SITE}:site` | hash | history, count, base, floor |
//! | `wisr:1:{SITE}:marks` | sorted set | each mark, by its count |
//! | `wisr:1:{SITE}:log` | stream | each invalidation, by its count |
//! | `wisr:1:{SITE}:replaced` | sorted set | each page that was replaced, by the count up to which |
//! | `wisr:1:{SITE}:hosts` | hash | who shares: time, count, name; expires |
//! | `wisr:1:{SITE}:heard` | hash | who follows the log: time, count; expires |
//! | `wisr:1:{SITE}:probe` | string | that Redis takes something; expires |
//!
//! 1 is the version of the layout. Only what stands in braces decides a key's slot in a Cluster:
//! pages spread, and each has its lease beside it; a site's invalidations are together. PAGE is the
//! hash of route, module and key: hosts with another release have pages of their own.

use crate::page::{PageKey, Tag};
use crate::store::Maker;
use crate::store::marks::Mark;

/// What every key begins with.
const PREFIX: &str = "wisr:1:";

/// Bytes of a page's hash: what the record says of itself is compared as well.
const HASH: usize = 16;

/// The names of one site.
#[derive(Debug)]
pub(super) struct Names {
    site: String,
    /// Of the site's invalidations: the site, its marks, its log.
    pub(super) control: [String; 3],
    pub(super) replaced: String,
    pub(super) hosts: String,
    pub(super) heard: String,
    pub(super) probe: String,
}

/// The names of one page.
#[derive(Debug, Clone)]
pub(super) struct PageNames {
    pub(super) page: String,
    pub(super) lease: String,
}

impl Names {
    pub(super) fn new(site: &str) -> Self {
        let name = |kind| format!("{PREFIX}{{{site}}}:{kind}");
        Self {
            site: site.to_owned(),
            control: ["site", "marks", "log"].map(name),
            replaced: name("replaced"),
            hosts: name("hosts"),
            heard: name("heard"),
            probe: name("probe"),
        }
    }

    pub(super) fn control(&self) -> [&String; 3] {
        self.control.each_ref()
    }

    pub(super) fn page(&self, key: &PageKey, maker: &Maker) -> PageNames {
        let mut hash = blake3::Hasher::new();
        for part in [maker.route.as_bytes(), key.as_str().as_bytes()] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(maker.module.as_bytes());
        let hash = hash.finalize().to_hex();
        let (site, hash) = (&self.site, &hash[..2 * HASH]);
        PageNames {
            page: format!("{PREFIX}{site}:p:{{{hash}}}"),
            lease: format!("{PREFIX}{site}:l:{{{hash}}}"),
        }
    }
}

const PATH: u8 = b'p';
const PURGE: u8 = b'x';
const REPLACED: u8 = b'r';
const TAG: u8 = b't';

/// A mark as a member of the sorted set and of the log; of a page that was replaced, up to the count
/// `at`, as it is handed to the script that tells of it.
pub(super) fn encode(mark: &Mark, at: u64) -> Vec<u8> {
    let (kind, text) = match mark {
        Mark::Path(key) => (PATH, key.as_str()),
        Mark::Purge(key) => (PURGE, key.as_str()),
        Mark::Replaced(key) => return format!("{}{at} {key}", char::from(REPLACED)).into_bytes(),
        Mark::Tag(tag) => (TAG, tag.as_str()),
    };
    [&[kind], text.as_bytes()].concat()
}

/// What the log says of a page that was replaced, and up to which count.
pub(super) fn decode_replaced(said: &[u8]) -> Option<(Mark, u64)> {
    let (at, key) = std::str::from_utf8(said).ok()?.split_once(' ')?;
    Some((Mark::Replaced(PageKey::new(key, &[])), at.parse().ok()?))
}

/// The mark that a member is; none for one of a later wisr.
pub(super) fn decode(member: &[u8]) -> Option<Mark> {
    let (kind, text) = member.split_first()?;
    let text = std::str::from_utf8(text).ok()?;
    match *kind {
        PATH => Some(Mark::Path(PageKey::new(text, &[]))),
        PURGE => Some(Mark::Purge(PageKey::new(text, &[]))),
        TAG => Tag::new(text).ok().map(Mark::Tag),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Digest;

    #[test]
    fn names_are_what_other_hosts_of_this_version_use() {
        let names = Names::new("shop");
        assert_eq!(
            names.control,
            [
                "wisr:1:{shop}:site",
                "wisr:1:{shop}:marks",
                "wisr:1:{shop}:log"
            ]
        );
        let maker = |route: &str, module: &[u8]| Maker {
            route: route.into(),
            module: Digest::of(module),
        };
        let key = PageKey::new("/posts/1", &[]);
        let page = names.page(&key, &maker("/posts/[id]", b"module"));
        assert_eq!(
            page.page,
            "wisr:1:shop:p:{6ff5e624d7f9ec4bd2046794ced26f97}"
        );
        assert_eq!(page.lease, page.page.replace(":p:", ":l:"));
        for other in [maker("/posts/1", b"module"), maker("/posts/[id]", b"other")] {
            assert_ne!(names.page(&key, &other).page, page.page);
        }
    }

    #[test]
    fn members_are_what_other_hosts_of_this_version_read() {
        let marks = [
            (Mark::Path(PageKey::new("/a?q=1", &[])), b"p/a?q=1".to_vec()),
            (Mark::Purge(PageKey::new("/a", &[])), b"x/a".to_vec()),
            (Mark::Tag(Tag::new("größe").unwrap()), "tgröße".into()),
        ];
        for (mark, member) in marks {
            assert_eq!(encode(&mark, 7), member);
            assert_eq!(decode(&member), Some(mark));
        }
        for foreign in [&b""[..], b"t", b"z/later", b"p\xff"] {
            assert_eq!(decode(foreign), None);
        }
        let replaced = Mark::Replaced(PageKey::new("/a?q=1 ", &[]));
        let told = encode(&replaced, 7);
        assert_eq!(told, b"r7 /a?q=1 ");
        assert_eq!(decode_replaced(&told[1..]), Some((replaced, 7)));
        // Hosts of the first version do not know it, nor do they take it for anything else.
        assert_eq!(decode(&told), None);
        for foreign in [&b""[..], b"7", b"x /a", b"7 \xff"] {
            assert_eq!(decode_replaced(foreign), None);
        }
    }
}
