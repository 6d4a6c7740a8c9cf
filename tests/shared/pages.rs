//! Pages that hosts have in common.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::extent;
use super::hosts::{host, pair, site, until_breaker};
use super::redis::Redis;
use crate::modules;
use crate::origin::Origin;
use crate::site::{Running, wait_longer};
use crate::tools::tool;

#[tokio::test]
async fn a_page_that_one_host_made_is_a_hit_on_another_with_its_true_age() {
    let Some((_redis, origin, a, b)) = pair().await else {
        return;
    };
    let made = a.get("/posts/1").await;
    assert_eq!(made.verdict(), "MISS");
    a.until("/posts/1", |page| page.header("age") != "0").await;
    let there = b.get("/posts/1").await;
    assert_eq!((there.verdict(), there.n()), ("HIT", 1));
    assert!(there.header("age").parse::<u64>().unwrap() >= 1);
    for header in ["etag", "last-modified", "content-type"] {
        assert_eq!(there.header(header), made.header(header), "{header}");
    }
    assert_eq!(there.body, made.body);
    assert_eq!(origin.count("/posts/1"), 1);
    // This page, and the one that is made ahead.
    assert_eq!(b.metric("wisr_shared_hits_total").await, 2.0);
}

#[tokio::test]
async fn what_is_no_document_is_shared_as_well() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    origin.script("/posts/gone", json!({"outcome": "not-found"}));
    let moved = json!({"outcome": "redirect", "location": "/new", "redirect_status": 308});
    origin.script("/posts/moved", moved);
    let (a, b) = (
        host(&redis.url(), &origin).await,
        host(&redis.url(), &origin).await,
    );
    for (path, status) in [("/posts/gone", 404), ("/posts/moved", 308)] {
        for host in [&a, &b] {
            assert_eq!(host.get(path).await.status, status, "{path}");
        }
        assert_eq!(origin.count(path), 1, "{path}");
    }
}

/// A page expires at the same time everywhere, and is made anew once.
#[tokio::test]
async fn an_expired_page_is_made_anew_by_one_host_and_shown_by_all() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    origin.script("/posts/1", json!({"revalidate": 1}));
    let mut hosts = Vec::new();
    for _ in 0..3 {
        hosts.push(host(&redis.url(), &origin).await);
    }
    hosts[0].get("/posts/1").await;
    let mut seen = [0; 3];
    while origin.count("/posts/1") < 5 {
        for (host, seen) in hosts.iter().zip(&mut seen) {
            let n = host.get("/posts/1").await.n();
            assert!(n >= *seen, "{n} after {seen}");
            *seen = n;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Four expiries of a second each: made by each host, the calls would come in threes.
    let calls = origin.calls("/posts/1");
    for pair in calls.windows(2) {
        let apart = pair[1].at - pair[0].at;
        assert!(apart >= Duration::from_millis(950), "{apart:?}");
    }
}

/// During a rolling deployment readers of each host see what that host's own modules make.
#[tokio::test]
async fn hosts_with_different_modules_neither_show_each_others_pages_nor_fight() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let old = host(&redis.url(), &origin).await;
    let new = site(&redis.url())
        .module("posts/[id]", &modules::puppet_version(2))
        .start_on(origin.clone())
        .await;
    until_breaker(&new, "closed").await;
    for _ in 0..20 {
        assert_eq!(old.get("/posts/1").await.whole()["version"], "0000");
        assert_eq!(new.get("/posts/1").await.whole()["version"], "0002");
    }
    assert_eq!(origin.count("/posts/1"), 2);
    // Both hear of an invalidation, and each makes its own page anew.
    old.renew("/posts/1").await;
    new.until("/posts/1", |page| page.verdict() == "HIT" && page.n() >= 3)
        .await;
    assert_eq!(new.get("/posts/1").await.whole()["version"], "0002");
    assert_eq!(old.get("/posts/1").await.whole()["version"], "0000");
    assert_eq!(origin.count("/posts/1"), 4);
    // The deployment goes on: the host that comes to the new module finds its page.
    old.swap("posts/[id]", &modules::puppet_version(2));
    old.until("/posts/1", |page| page.whole()["version"] == "0002")
        .await;
    assert_eq!(origin.count("/posts/1"), 4);
}

#[tokio::test]
async fn a_host_that_comes_anew_finds_what_others_have_made() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let a = host(&redis.url(), &origin).await;
    let paths: Vec<String> = (0..50).map(|n| format!("/posts/{n}")).collect();
    for path in &paths {
        a.get(path).await;
    }
    drop(a);
    let b = host(&redis.url(), &origin).await;
    for path in &paths {
        assert_eq!(b.get(path).await.verdict(), "HIT", "{path}");
        assert_eq!(origin.count(path), 1, "{path}");
    }
}

/// What a cold page asks of Redis: whether there is one, to make it, to keep it; a hit asks nothing.
#[tokio::test]
async fn a_cold_page_costs_three_commands_and_a_hit_none() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let a = host(&redis.url(), &origin).await;
    let count = async || {
        let mut counts = Vec::new();
        for operation in ["get", "acquire", "commit", "release"] {
            let name = format!("wisr_shared_operations_total{{operation={operation:?}}}");
            counts.push(a.metric_or_zero(&name).await);
        }
        counts
    };
    let before = count().await;
    for n in 0..50 {
        a.get(&format!("/posts/{n}")).await;
    }
    let cold = count().await;
    let more: Vec<f64> = cold.iter().zip(&before).map(|(a, b)| a - b).collect();
    assert_eq!(more, [50.0, 50.0, 50.0, 0.0]);
    for n in 0..50 {
        assert_eq!(a.get(&format!("/posts/{n}")).await.verdict(), "HIT");
    }
    assert_eq!(count().await, cold);
}

/// Whatever is wrong with a page in Redis costs one generation.
#[tokio::test]
async fn what_cannot_be_read_counts_as_missing() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let a = host(&redis.url(), &origin).await;
    a.get("/posts/1").await;
    let pages = redis.keys("wisr:1:default:p:*").await;
    // That of `/posts/1`, and that of `/`, which is made ahead.
    assert_eq!(pages.len(), 2);
    // Bytes of the record as they might be: `it` is what there is.
    let flipped = "local byte = 1 + math.floor(#it / 2)
        return it:sub(1, byte - 1) .. string.char((it:byte(byte) + 1) % 256) .. it:sub(byte + 1)";
    let wrongs = [
        ("body", "return 'garbage'"),
        ("body", flipped),
        ("body", "return it:sub(1, -2)"),
        ("body", "return nil"),
        ("meta", "return 'WISm\\127later'"),
        ("meta", "return 'XISm' .. it:sub(5)"),
        ("meta", flipped),
        ("meta", "return it:sub(1, -2)"),
        ("meta", "return ''"),
    ];
    for (field, how) in wrongs {
        for page in &pages {
            let script = format!(
                "local function wrong(it) {how} end
                local new = wrong(redis.call('HGET', KEYS[1], ARGV[1]))
                if new then redis.call('HSET', KEYS[1], ARGV[1], new)
                else redis.call('HDEL', KEYS[1], ARGV[1]) end
                return 'done'"
            );
            let done = redis.ask(&["EVAL", &script, "1", page, field]).await;
            assert!(done.contains("done"), "{done}");
        }
        let before = origin.count("/posts/1");
        let b = host(&redis.url(), &origin).await;
        let shown = b.get("/posts/1").await;
        let what = format!("{field}: {how}");
        assert_eq!((shown.verdict(), shown.status), ("MISS", 200), "{what}");
        assert_eq!(origin.count("/posts/1"), before + 1, "{what}");
        assert!(b.metric("wisr_store_unreadable_total").await >= 1.0);
        // It was made anew for all.
        let c = host(&redis.url(), &origin).await;
        assert_eq!(c.get("/posts/1").await.n(), shown.n(), "{what}");
    }
}

/// While hosts are brought to a later wisr one by one, those of this version read what it writes:
/// fields and marks that they have never heard of, and records that they cannot read.
#[tokio::test]
async fn hosts_of_a_later_version_are_got_along_with() {
    let Some((redis, origin, a, b)) = pair().await else {
        return;
    };
    for path in ["/posts/1", "/posts/2"] {
        a.get(path).await;
        b.get(path).await;
    }
    // A purge as a later version may tell it, with what else it may have to say.
    let later = "local n = redis.call('HINCRBY', KEYS[1], 'count', 1)
        redis.call('HSET', KEYS[1], 'later', 'x')
        redis.call('ZADD', KEYS[2], n, 'x/posts/1', n, 'z/later')
        redis.call('HSET', KEYS[1], 'marks', redis.call('ZCARD', KEYS[2]))
        redis.call('XADD', KEYS[3], n .. '-1', 'o', 'later', 'l', '9', 'z', 'x', 'm', 'x/posts/1',
            'm', 'z/later', 'f', '0')
        return n";
    let control = ["site", "marks", "log"].map(|key| format!("wisr:1:{{default}}:{key}"));
    let [site, marks, log] = &control;
    redis.ask(&["EVAL", later, "3", site, marks, log]).await;
    for host in [&a, &b] {
        host.until("/posts/1", |page| page.n() == 2).await;
        assert_eq!(host.get("/posts/2").await.n(), 1);
        assert_eq!(host.metric("wisr_shared_repairs_total").await, 0.0);
    }
    // A host that begins reads the marks themselves, and a page of a format that it does not know is
    // made in that of its own, which the later version reads as well.
    for page in redis.keys("wisr:1:default:p:*").await {
        redis.ask(&["HSET", &page, "meta", "WISm\u{7f}later"]).await;
    }
    let c = host(&redis.url(), &origin).await;
    assert_eq!(c.get("/posts/2").await.verdict(), "MISS");
    let d = host(&redis.url(), &origin).await;
    assert_eq!(d.get("/posts/2").await.verdict(), "HIT");
    assert_eq!(origin.count("/posts/2"), 2);
}

/// A page that is asked for stays, however seldom it is made.
#[tokio::test]
async fn a_page_that_new_hosts_ask_for_is_kept_for_the_next() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let a = host(&redis.url(), &origin).await;
    a.get("/posts/1").await;
    let pages = redis.keys("wisr:1:default:p:*").await;
    for page in &pages {
        // As if it had been made almost a week ago.
        redis.ask(&["PEXPIRE", page, "60000"]).await;
    }
    let b = host(&redis.url(), &origin).await;
    assert_eq!(b.get("/posts/1").await.verdict(), "HIT");
    let mut left = Vec::new();
    for page in &pages {
        left.push(number(&redis.ask(&["PTTL", page]).await));
    }
    let day = 24 * 3600 * 1000;
    assert!(left.iter().any(|left| *left > 6 * day), "{left:?}");
}

/// Nothing in Redis outlives the pages that it belongs to, but for what is bounded.
#[tokio::test]
async fn the_memory_of_redis_comes_back_when_pages_expire() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let pages = extent(2_000, 1_000_000);
    let start = async |keep: &str| {
        let brief = format!("[store]\nkeep = {keep:?}\ndurable = false");
        let host = site(&redis.url())
            .config(&brief)
            .logging("warn")
            .start_on(origin.clone())
            .await;
        until_breaker(&host, "closed").await;
        host
    };
    let mut a = start("3s").await;
    a.revalidate(json!({"tags": ["news"]})).await;
    let first = round(&a, &redis, 200).await;
    a.terminate();
    a.ended().await;
    // Long enough for all of them to be there at once.
    let a = start(extent("10s", "15m")).await;
    assert_eq!(round(&a, &redis, pages).await, first);
    let control = [
        "wisr:1:{default}:heard",
        "wisr:1:{default}:hosts",
        "wisr:1:{default}:log",
        "wisr:1:{default}:marks",
        "wisr:1:{default}:site",
    ];
    let mut left = redis.keys("*").await;
    left.sort();
    assert_eq!(left, control);
}

/// Readers at once.
const READERS: usize = 32;

/// Leases are the memory of paused leaders: each has at most an hour to live, and is removed here.
const FORGET_LEASES: &str = "
    local left = 0
    for _, lease in ipairs(redis.call('KEYS', 'wisr:1:default:l:*')) do
        local ttl = redis.call('PTTL', lease)
        if ttl < 1 or ttl > 3600000 then return redis.error_reply(lease .. ' ' .. ttl) end
        redis.call('DEL', lease)
        left = left + 1
    end
    return left";

/// Makes pages, has a tag of theirs invalidated, and waits until they are gone; the memory that Redis
/// then has for what is left.
async fn round(host: &Running, redis: &Redis, pages: usize) -> usize {
    let (started, next) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let (mut client, next) = (host.reader(), next.clone());
            let origin = host.origin.clone();
            tokio::spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= pages {
                        return;
                    }
                    let path = format!("/posts/{n}");
                    origin.script(&path, json!({"tags": [format!("tag-{}", n % 1_000)]}));
                    let made = client.send("GET", &path, &[], "").await.unwrap();
                    assert_eq!(made.status, 200);
                    origin.heal(&path);
                }
            })
        })
        .collect();
    for reader in readers {
        reader.await.unwrap();
    }
    let filled = started.elapsed();
    let count = "return #redis.call('KEYS', 'wisr:1:default:p:*')";
    let there = number(&redis.ask(&["EVAL", count, "0"]).await);
    assert!(there >= pages, "{there} pages after {filled:?}");
    let memory = redis.ask(&["INFO", "memory"]).await;
    let used = memory.lines().find(|line| line.starts_with("used_memory:"));
    let asked = Instant::now();
    let told = host.revalidate(json!({"tags": ["news"]})).await;
    assert_eq!(told.json()["propagated"], true);
    let took = asked.elapsed();
    eprintln!("{there} pages in {filled:?}, {used:?}; a tag took {took:?}");
    let limit = extent(Duration::from_secs(60), Duration::from_secs(3_600));
    wait_longer(limit, "the pages to expire", async || {
        // A lease for each page stays; and the last pages that have expired, for as long as Redis
        // has other things to do, although nobody finds them any more.
        let size = number(&redis.ask(&["DBSIZE"]).await);
        if size > there + there / 4 {
            return Err(format!("{size} keys"));
        }
        match redis.keys("wisr:1:default:p:*").await.len() {
            0 => Ok(()),
            pages => Err(format!("{pages} pages")),
        }
    })
    .await;
    let forgotten = redis.ask(&["EVAL", FORGET_LEASES, "0"]).await;
    assert!(number(&forgotten) >= pages, "{forgotten}");
    let mut bytes = 0;
    for key in redis.keys("*").await {
        if key.ends_with(":log") {
            // It has what was said here: it grows by that, up to where it ends.
            continue;
        }
        let answer = redis.ask(&["MEMORY", "USAGE", &key]).await;
        bytes += number(&answer);
    }
    bytes
}

/// The number that is an answer.
fn number(answer: &str) -> usize {
    let number = answer
        .strip_prefix(':')
        .unwrap_or_else(|| panic!("{answer}"));
    number.trim().parse().unwrap()
}

/// What makes the clock of a program another one: put before the C library's.
const SKEW: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, now);
    if (!failed && id == CLOCK_REALTIME) now->tv_sec += atol(getenv("WISR_TEST_SKEW"));
    return failed;
}
"#;

/// Hosts whose clocks are an hour apart, each way, agree on ages and on what has expired.
#[tokio::test]
async fn hosts_need_not_agree_on_the_time() {
    let (Some(redis), Some(cc)) = (
        Redis::start().await,
        tool("cc", "apt-get install build-essential"),
    ) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (source, library) = (folder.path().join("skew.c"), folder.path().join("skew.so"));
    std::fs::write(&source, SKEW).unwrap();
    let built = Command::new(cc)
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status()
        .unwrap();
    assert!(built.success());
    let origin = Origin::start().await;
    origin.script("/posts/1", json!({"revalidate": 2}));
    let mut hosts = vec![host(&redis.url(), &origin).await];
    for skew in ["3600", "-3600"] {
        let skewed = site(&redis.url())
            .env("LD_PRELOAD", library.to_str().unwrap())
            .env("WISR_TEST_SKEW", skew);
        let host = skewed.start_on(origin.clone()).await;
        until_breaker(&host, "closed").await;
        hosts.push(host);
    }
    for first in 0..3 {
        let path = format!("/posts/by-{first}");
        hosts[first].get(&path).await;
        for host in &hosts {
            let shown = host.get(&path).await;
            assert_eq!(shown.verdict(), "HIT", "made by {first}");
            assert!(shown.header("age").parse::<u64>().unwrap() < 30);
        }
        assert_eq!(origin.count(&path), 1);
    }
    let dates = [&hosts[0], &hosts[1]].map(|host| host.get("/posts/by-0"));
    let [here, ahead] = dates;
    assert_ne!(
        here.await.header("date")[..20],
        ahead.await.header("date")[..20],
        "no skew"
    );
    // Each expiry is the same moment for all.
    while origin.count("/posts/1") < 4 {
        for host in &hosts {
            host.get("/posts/1").await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for pair in origin.calls("/posts/1").windows(2) {
        assert!(pair[1].at - pair[0].at >= Duration::from_millis(1_900));
    }
}
