//! `Urls`: where the hosts of a site keep what they share, `url` and its neighbours in `[store]`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::file::Store;
use crate::store::SharedConfig;

/// Waited for by readers: more than a busy server takes in one data centre, less than they notice.
const TIMEOUT: Duration = Duration::from_millis(200);
/// What a dead host may cost those who wait for its page.
const LEASE: Duration = Duration::from_secs(5);
/// Hosts have their own last good pages: these are for hosts that come anew.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);

/// Redis remembers for an hour who had a lease, so that whoever was paused is told from who has it
/// now.
const LONGEST_LEASE: Duration = Duration::from_secs(10 * 60);
/// Those who wait for another host's page must find it.
const SHORTEST_KEEP: Duration = Duration::from_secs(1);
/// Redis takes no span that ends beyond its calendar.
const LONGEST_KEEP: Duration = Duration::from_secs(3653 * 24 * 3600);

/// One URL, or a list of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Urls(pub(super) Vec<String>);

struct UrlsVisitor;

impl<'de> Visitor<'de> for UrlsVisitor {
    type Value = Urls;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("\"redis://host:6379\", or for a Cluster a list of such")
    }

    fn visit_str<E: Error>(self, url: &str) -> Result<Urls, E> {
        Ok(Urls(vec![url.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Urls, A::Error> {
        let mut urls = Vec::new();
        while let Some(url) = list.next_element::<String>()? {
            urls.push(url);
        }
        Ok(Urls(urls))
    }
}

impl<'de> Deserialize<'de> for Urls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UrlsVisitor)
    }
}

/// What `[store]` says of sharing; none without `url`, and none for an author: what is tried out is
/// nothing for readers. `root` is where relative paths begin.
pub(super) fn resolve(
    store: &Store,
    root: &Path,
    is_author: bool,
) -> anyhow::Result<Option<SharedConfig>> {
    let Some(Urls(urls)) = store.url.as_ref().filter(|_| !is_author) else {
        return Ok(None);
    };
    ensure!(
        !urls.is_empty(),
        "store.url is an empty list: name a server, \"redis://host:6379\", or leave it out"
    );
    let site = store.site.clone().unwrap_or_else(|| "default".to_owned());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    ensure!(
        !site.is_empty() && site.chars().all(is_plain),
        "store.site = {site:?}: use letters, digits, `.`, `_` and `-`, the same on all hosts"
    );
    let roots = store.ca.as_ref().map(|ca| {
        let ca = root.join(ca);
        std::fs::read(&ca).with_context(|| format!("store.ca: cannot read {}", ca.display()))
    });
    let lease = store.lease.map_or(LEASE, |lease| lease.0);
    let timeout = store.timeout.map_or(TIMEOUT, |timeout| timeout.0);
    ensure!(
        !timeout.is_zero() && lease >= timeout * 3,
        "store.lease must be at least three times store.timeout, which is longer than 0: it is \
         renewed three times before it ends"
    );
    ensure!(
        lease <= LONGEST_LEASE,
        "store.lease = \"{}\" is too long: write \"10m\" or less. It is what a dead host costs its \
         readers, and a lease is prolonged while its host lives",
        humantime::format_duration(lease)
    );
    let keep = store.keep.map_or(KEEP, |keep| keep.0);
    ensure!(
        (SHORTEST_KEEP..=LONGEST_KEEP).contains(&keep),
        "store.keep = \"{}\": write \"1s\" to \"10years\"; a page that Redis does not keep for that long \
         is made by each host for itself",
        humantime::format_duration(keep)
    );
    let config = SharedConfig {
        urls: urls.clone(),
        user: store.user.clone(),
        password: store.password.clone(),
        roots: roots.transpose()?,
        name: String::new(),
        site,
        timeout,
        lease,
        keep,
    };
    config.check()?;
    Ok(Some(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Option<SharedConfig>> {
        let store: Store = toml::from_str(text)?;
        resolve(&store, Path::new("/site"), false)
    }

    #[test]
    fn nothing_is_shared_unless_a_url_says_where() {
        assert!(parse("").unwrap().is_none());
        let store: Store = toml::from_str("url = \"redis://a:1\"").unwrap();
        assert!(resolve(&store, Path::new("/src"), true).unwrap().is_none());
        let one = parse("url = \"redis://a:1\"").unwrap().unwrap();
        assert_eq!(
            (one.urls, &*one.site),
            (vec!["redis://a:1".to_owned()], "default")
        );
        assert_eq!((one.timeout, one.lease), (TIMEOUT, LEASE));
        let cluster = parse("url = [\"redis://a:1\", \"redis://b:1\"]\nsite = \"shop\"");
        let cluster = cluster.unwrap().unwrap();
        assert_eq!((cluster.urls.len(), &*cluster.site), (2, "shop"));
    }

    #[test]
    fn mistakes_name_the_key_and_the_fix() {
        let refused = |text: &str| format!("{:#}", parse(text).unwrap_err());
        assert!(refused("url = []").contains("redis://host:6379"));
        assert!(refused("url = \"redis://a\"\nsite = \"a b\"").contains("store.site"));
        assert!(refused("url = \"redis://a\"\nlease = \"100ms\"").contains("store.lease"));
        for wrong in ["lease = \"11m\"", "keep = \"0s\"", "keep = \"11years\""] {
            let told = refused(&format!("url = \"redis://a\"\n{wrong}"));
            assert!(told.contains(wrong.split(' ').next().unwrap()), "{told}");
        }
        assert!(refused("url = \"redis://a\"\nca = \"no.pem\"").contains("/site/no.pem"));
        assert!(refused("url = 5").contains("redis://host:6379"));
    }
}
