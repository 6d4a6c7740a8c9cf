//! Memory and disk together, restarts between.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::page::{Content, Digest, Freshness, Tag, Timestamp, judge};
use crate::store::conformance::{document, entry, told};

fn open(folder: &Path, memory: usize) -> Arc<Tiers> {
    let config = Config {
        memory,
        folder: Some(folder.to_owned()),
        disk: crate::store::Space::default(),
    };
    Tiers::open(config, Arc::new(Metrics::new())).unwrap()
}

/// An entry made from data read now.
fn made(tiers: &Tiers, path: &str, generated: u64) -> Arc<Entry> {
    let mut entry = document(path, generated, &"text ".repeat(200));
    entry.stamp.sequence = tiers.sequence();
    Arc::new(entry)
}

fn key(path: &str) -> PageKey {
    PageKey::new(path, &[])
}

#[tokio::test]
async fn what_memory_gives_up_is_found_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let weight = document("/00", 1, &"text ".repeat(200)).weight();
    let tiers = open(folder.path(), weight * 5);
    for number in 0..50 {
        tiers.put(made(&tiers, &format!("/{number:02}"), number));
    }
    let cold: Vec<PageKey> = (0..50)
        .map(|number| key(&format!("/{number:02}")))
        .collect();
    assert!(tiers.get_hot(&cold[0]).is_none());
    for key in &cold {
        assert_eq!(told(tiers.find(key).await), told(tiers.get_hot(key)));
        assert!(tiers.get_hot(key).is_some());
    }
    assert_eq!(tiers.list(Window::new("/", 99)).await.len(), 50);
    assert!(tiers.find(&key("/none")).await.is_none());
    assert!(tiers.reading.lock().is_empty());
}

#[tokio::test]
async fn those_who_ask_at_once_share_one_read() {
    let folder = tempfile::tempdir().unwrap();
    let tiers = open(folder.path(), 1 << 20);
    tiers.put(made(&tiers, "/a", 1));
    tiers.synced().await.unwrap();
    drop(tiers);
    let tiers = open(folder.path(), 1 << 20);
    let asked = (0..20).map(|_| {
        let tiers = tiers.clone();
        async move { tiers.find(&key("/a")).await.unwrap() }
    });
    let found = futures_util::future::join_all(asked).await;
    assert!(found.iter().all(|entry| Arc::ptr_eq(entry, &found[0])));
    assert_eq!(tiers.health(), StoreHealth::Ok);
}

#[tokio::test]
async fn a_slow_read_never_brings_back_what_was_changed_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let tiers = open(folder.path(), 1 << 20);
    let old = made(&tiers, "/a", 1);
    let begin = || {
        let reading = Arc::new(Reading::default());
        tiers.reading.lock().insert(key("/a"), reading.clone());
        reading
    };
    let begun = begin();
    tiers.put(made(&tiers, "/a", 2));
    let read = tiers.arrived(&key("/a"), Some(old.clone()), &begun);
    assert!(matches!(read, Read::Overtaken));
    let hot = tiers.get_hot(&key("/a")).unwrap();
    assert_eq!(hot.stamp.generated.as_millis(), 2);
    let begun = begin();
    tiers.remove(&key("/a"));
    tiers.arrived(&key("/a"), Some(old.clone()), &begun);
    assert!(tiers.get_hot(&key("/a")).is_none());
    assert!(tiers.find(&key("/a")).await.is_none());
    let begun = begin();
    tiers.remove_routes(|route| route == "/posts/[id]").await;
    tiers.arrived(&key("/a"), Some(old), &begun);
    assert!(tiers.find(&key("/a")).await.is_none());
}

#[tokio::test]
async fn invalidations_hold_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let tiers = open(folder.path(), 1 << 20);
    tiers.put(made(&tiers, "/before", 1));
    tiers.put(made(&tiers, "/purged", 1));
    tiers.mark([Mark::Tag(Tag::new("posts").unwrap())]);
    tiers.synced().await.unwrap();
    tiers.put(made(&tiers, "/after", 2));
    tiers.mark([Mark::Purge(key("/purged"))]);
    tiers.remove(&key("/purged"));
    tiers.synced().await.unwrap();
    let sequence = tiers.sequence();
    drop(tiers);
    let tiers = open(folder.path(), 1 << 20);
    assert_eq!(tiers.sequence(), sequence);
    let why = async |path: &str| {
        let entry = tiers.find(&key(path)).await.unwrap();
        tiers.why(&entry.key, &entry.stamp)
    };
    assert!(matches!(why("/before").await, Some(Why::Tag(_))));
    assert_eq!(why("/after").await, None);
    assert!(tiers.find(&key("/purged")).await.is_none());
    assert!(tiers.ledger.purged_since(&key("/purged"), sequence - 1));
    tiers.mark([Mark::Path(key("/after"))]);
    tiers.synced().await.unwrap();
    assert_eq!(why("/after").await, Some(Why::Path));
}

#[tokio::test]
async fn an_entry_from_ahead_of_the_site_counts_as_invalidated() {
    let folder = tempfile::tempdir().unwrap();
    let tiers = open(folder.path(), 1 << 20);
    let tag = || [Mark::Tag(Tag::new("posts").unwrap())];
    tiers.mark(tag());
    tiers.synced().await.unwrap();
    let mut ahead = document("/a", 1, "text");
    ahead.stamp.sequence = 5;
    tiers.put(Arc::new(ahead));
    tiers.synced().await.unwrap();
    drop(tiers);
    let tiers = open(folder.path(), 1 << 20);
    let entry = tiers.find(&key("/a")).await.unwrap();
    assert!(tiers.why(&entry.key, &entry.stamp).is_some());
}

#[tokio::test]
async fn age_counts_from_the_making_whatever_the_clock_says_at_a_restart() {
    const NOON: u64 = 1_700_000_000_000;
    const HOUR: u64 = 3_600_000;
    let folder = tempfile::tempdir().unwrap();
    let tiers = open(folder.path(), 1 << 20);
    tiers.put(made(&tiers, "/a", NOON));
    tiers.put(Arc::new(entry("/gone", NOON, Content::NotFound)));
    tiers.synced().await.unwrap();
    drop(tiers);
    let tiers = open(folder.path(), 1 << 20);
    for path in ["/a", "/gone"] {
        let entry = tiers.find(&key(path)).await.unwrap();
        let at = |now| {
            let (now, owner) = (Timestamp::from_millis(now), Digest::of(b"module"));
            judge(
                &entry.stamp,
                now,
                owner,
                Duration::from_secs(1_000_000),
                None,
            )
        };
        let fresh_for = |millis| Freshness::Fresh(Some(Duration::from_millis(millis)));
        assert_eq!(at(NOON + 1_000), fresh_for(62_000));
        assert_eq!(at(NOON + HOUR), Freshness::Stale(Why::Age));
        assert_eq!(at(NOON - HOUR), Freshness::Stale(Why::Clock));
    }
}

#[tokio::test]
async fn pages_are_found_by_their_tags_wherever_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let tiers = open(folder.path(), 1 << 20);
    for number in 0..2_500 {
        tiers.room().await;
        tiers.put(made(&tiers, &format!("/{number:04}"), 1));
    }
    tiers.synced().await.unwrap();
    drop(tiers);
    let tiers = open(folder.path(), 1 << 20);
    let mut untagged = document("/0001", 2, "text");
    untagged.stamp.tags = Box::default();
    tiers.put(Arc::new(untagged));
    tiers.remove(&key("/0002"));
    tiers.put(made(&tiers, "/9999", 1));
    let tags = ["other", "größe"].map(|tag| Tag::new(tag).unwrap());
    let found = tiers.tagged(&tags, 10_000).await;
    assert_eq!(found.len(), 2_499);
    assert!(!found.contains(&key("/0001")) && !found.contains(&key("/0002")));
    assert!(found.contains(&key("/9999")) && found.contains(&key("/2499")));
    assert_eq!(tiers.tagged(&tags, 7).await.len(), 7);
    assert!(tiers.tagged(&tags[..1], 7).await.is_empty());
}

#[tokio::test]
async fn a_disk_that_hangs_is_a_miss_for_all_after_the_first_has_waited() {
    let folder = tempfile::tempdir().unwrap();
    let tiers = open(folder.path(), 1 << 20);
    tiers.put(made(&tiers, "/a", 1));
    tiers.put(made(&tiers, "/b", 1));
    tiers.synced().await.unwrap();
    drop(tiers);
    let tiers = open(folder.path(), 1 << 20);
    tokio::time::pause();
    let (hung, start) = (tiers.hang(), tokio::time::Instant::now());
    assert!(tiers.find(&key("/a")).await.is_none());
    for _ in 0..1_000 {
        assert!(tiers.find(&key("/b")).await.is_none());
    }
    assert!(start.elapsed() < READ_PATIENCE * 2, "{:?}", start.elapsed());
    tiers.put(made(&tiers, "/c", 1));
    assert!(tiers.find(&key("/c")).await.is_some());
    drop(hung);
    for path in ["/a", "/b"] {
        while tiers.find(&key(path)).await.is_none() {
            tokio::time::advance(READ_PATIENCE).await;
        }
    }
}

#[tokio::test]
async fn who_asks_for_many_pages_of_a_disk_that_hangs_gets_those_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let tiers = open(folder.path(), 1 << 20);
    tiers.put(made(&tiers, "/a", 1));
    tiers.synced().await.unwrap();
    let hung = tiers.hang();
    tokio::time::pause();
    let (start, all) = (tokio::time::Instant::now(), tiers.clone());
    let asking = tokio::spawn(async move {
        let listed = all.list(Window::new("/", 9)).await.len();
        let stamps = all.stamps(vec![key("/cold")]).await.len();
        let removed = all.remove_routes(|_| true).await;
        (listed, stamps, removed)
    });
    while !asking.is_finished() {
        // Threads that hang keep a paused clock from going on by itself.
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(asking.await.unwrap(), (1, 0, 1));
    assert!(start.elapsed() < PATIENCE * 4, "{:?}", start.elapsed());
    assert!(tiers.get_hot(&key("/a")).is_none());
    drop(hung);
}

#[tokio::test]
async fn a_crawler_of_ten_times_the_pages_leaves_the_hot_ones_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let weight = document("/0000", 1, &"text ".repeat(200)).weight();
    let tiers = open(folder.path(), weight * 500);
    let keys: Vec<PageKey> = (0..5_000).map(|n| key(&format!("/{n:04}"))).collect();
    for key in &keys {
        tiers.room().await;
        tiers.put(made(&tiers, key.as_str(), 1));
    }
    let hits = || {
        keys[..100]
            .iter()
            .filter(|key| tiers.get_hot(key).is_some())
    };
    for _ in 0..2 {
        for key in &keys[..100] {
            tiers.find(key).await.unwrap();
        }
    }
    let before = hits().count();
    for key in &keys {
        tiers.find(key).await.unwrap();
    }
    let after = hits().count();
    assert!(
        before >= 95 && after >= 95,
        "{before} before, {after} after"
    );
}

#[tokio::test]
async fn without_a_folder_everything_is_in_memory() {
    let config = Config {
        memory: 1 << 20,
        folder: None,
        disk: crate::store::Space::default(),
    };
    let tiers = Tiers::open(config, Arc::new(Metrics::new())).unwrap();
    tiers.put(made(&tiers, "/a", 1));
    tiers.mark([Mark::Path(key("/a"))]);
    tiers.synced().await.unwrap();
    tiers.persisted().await.unwrap();
    tiers.synced().await.unwrap();
    assert!(tiers.find(&key("/a")).await.is_some());
    assert_eq!(tiers.list(Window::new("", 9)).await.len(), 1);
    let removed = tiers.remove_routes(|route| route == "/posts/[id]").await;
    assert_eq!(removed, 1);
    assert!(tiers.find(&key("/a")).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_set_aside_and_what_can_be_read_comes_back_as_stale() {
    let site = tempfile::tempdir().unwrap();
    let folder = site.path().join("store");
    for round in 0..2 {
        let tiers = open(&folder, 1 << 20);
        tiers.put(made(&tiers, "/a", 1));
        tiers.put(made(&tiers, "/b", 1));
        tiers.synced().await.unwrap();
        drop(tiers);
        std::fs::write(folder.join("format"), "no format of ours").unwrap();
        let tiers = open(&folder, 1 << 20);
        assert_eq!(tiers.health().as_str(), "set-aside");
        let mut found = None;
        while found.is_none() {
            found = tiers.find(&key("/a")).await;
        }
        let why = tiers.why(&key("/a"), &found.unwrap().stamp);
        assert_eq!(why, Some(Why::Path), "{round}");
        // The threads that are at work hold the folder until they are through.
        until_back(&tiers).await;
        assert!(!site.path().join("store.damaged").exists());
    }
}

async fn until_back(tiers: &Arc<Tiers>) {
    while tiers.gone.lock().is_some() || Arc::strong_count(tiers) > 1 {
        tokio::task::yield_now().await;
    }
}

/// Whatever is first, the page or the word that its route is gone, the page is not there.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_route_that_goes_do_not_come_back() {
    let site = tempfile::tempdir().unwrap();
    let folder = site.path().join("store");
    let tiers = open(&folder, 1 << 20);
    for number in 0..500 {
        tiers.put(made(&tiers, &format!("/{number}"), 1));
    }
    tiers.synced().await.unwrap();
    drop(tiers);
    std::fs::write(folder.join("format"), "no format of ours").unwrap();
    let tiers = open(&folder, 1 << 20);
    tiers.mark([Mark::Purge(key("/7"))]);
    tiers.remove_routes(|route| route == "/posts/[id]").await;
    until_back(&tiers).await;
    assert!(tiers.list(Window::new("", 9)).await.is_empty());
}
