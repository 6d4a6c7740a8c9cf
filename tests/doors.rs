//! Section 9: the two listeners and what each of them shows.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};

use serde_json::{Value, json};

use crate::site::{Site, wait_for};

/// The admin door says that the server lives and whether it is ready.
#[tokio::test]
async fn a_server_is_ready_when_everything_made_ahead_is_made() {
    let site = Site::new().pages(&["index"]).start_unready().await;
    assert_eq!(site.admin("/livez").await.status, 200);
    site.until_ready().await;
    assert_eq!(site.get("/").await.verdict(), "HIT");
}

/// While pages are being made ahead of time it is alive and not ready, and serves all the same.
#[tokio::test]
async fn a_server_that_is_not_ready_serves_all_the_same() {
    let site = Site::new().pages(&["slow", "posts/[id]"]);
    let site = site
        .config("[defaults]\nwall = \"60s\"")
        .start_held("/slow")
        .await;
    site.until_calls("/slow", 1).await;
    assert_eq!(site.admin("/livez").await.status, 200);
    assert_eq!(site.admin("/readyz").await.status, 503);
    assert_eq!(site.get("/posts/1").await.status, 200);
    site.origin.release("/slow");
    site.until_ready().await;
}

/// `/metrics` counts what was served and made, in the format of Prometheus.
#[tokio::test]
async fn metrics_count_what_was_served_and_made() {
    let site = Site::new().pages(&["posts/[id]"]).start().await;
    for _ in 0..3 {
        site.get("/posts/1").await;
    }
    site.origin
        .script("/posts/2", json!({ "outcome": "error" }));
    site.get("/posts/2").await;
    let answer = site.admin("/metrics").await;
    assert_eq!(answer.status, 200);
    let text = answer.text();
    for (start, end) in [
        ("wisr_served_total{verdict=\"miss\"}", " 1"),
        ("wisr_served_total{verdict=\"hit\"}", " 2"),
        (
            "wisr_generations_total{cause=\"first-request\",outcome=\"document\"}",
            " 1",
        ),
        ("wisr_releases_total", " 1"),
        ("wisr_incidents_total", " 1"),
    ] {
        let found = text
            .lines()
            .any(|line| line.starts_with(start) && line.ends_with(end));
        assert!(found, "{start}{end} in\n{text}");
    }
    assert!(text.trim_end().ends_with("# EOF"), "{text}");
}

/// The dashboard is a page, and what it shows can be had as JSON.
#[tokio::test]
async fn the_dashboard_is_a_page() {
    let site = Site::new().pages(&["index", "posts/[id]"]).start().await;
    site.origin
        .script("/posts/1", json!({ "outcome": "error" }));
    site.get("/posts/1").await;
    let page = site.admin("/").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let told = site.admin("/api/overview").await.json();
    assert_eq!(
        (&told["routes"], &told["incidents"], &told["trouble"]),
        (&json!(2), &json!(1), &Value::Null)
    );
    assert_eq!(told["readiness"], site.admin("/readyz").await.json());
    assert!(told["memory"]["resident"].as_u64().unwrap() > 1 << 20);
    assert!(page.text().contains("the origin wants an error"));
    assert_eq!(site.admin("/api/nothing").await.status, 404);
}

/// What went on in the last minutes is there without anybody asking for it meanwhile.
#[tokio::test]
async fn the_last_minutes_are_kept() {
    let site = Site::new().pages(&["posts/[id]"]).start().await;
    for _ in 0..3 {
        site.get("/posts/1").await;
    }
    let sum = |samples: &[Value], field: &str| -> u64 {
        let values = samples.iter().map(|sample| sample[field].as_u64().unwrap());
        values.sum()
    };
    let samples = wait_for("a sample of three requests", async || {
        let told = site.admin("/api/live").await.json();
        let samples = told["samples"].as_array().unwrap().clone();
        match (sum(&samples, "misses"), sum(&samples, "hits")) {
            (1, 2) => Ok(samples),
            seen => Err(format!("{seen:?}")),
        }
    })
    .await;
    // The first page was waited for, so its time was taken.
    assert!(samples.iter().any(|sample| sample["p99_us"].is_u64()));
    let last = samples.last().unwrap()["at"].as_u64().unwrap();
    let later = site.admin(&format!("/api/live?after={last}")).await.json();
    let later = later["samples"].as_array().unwrap();
    assert!(
        later
            .iter()
            .all(|sample| sample["at"].as_u64().unwrap() > last)
    );
}

/// What is for operators is not shown to readers.
#[tokio::test]
async fn readers_do_not_see_what_is_for_operators() {
    let site = Site::new().pages(&["index"]).start().await;
    for path in [
        "/metrics",
        "/livez",
        "/readyz",
        "/api/incidents",
        "/api/releases",
    ] {
        assert_eq!(site.get(path).await.status, 404, "{path}");
    }
}

/// The public door speaks HTTP/2, also without TLS for proxies in front.
#[tokio::test]
async fn pages_are_served_over_http_2() {
    let site = Site::new().pages(&["posts/[id]"]).start().await;
    let stream = tokio::net::TcpStream::connect(site.site()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    for verdict in ["MISS", "HIT"] {
        let request = http::Request::get(format!("http://{}/posts/1", site.site()));
        let answer = sender
            .send_request(request.body(Empty::<Bytes>::new()).unwrap())
            .await
            .unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["x-wisr-cache"]),
            (200, &verdict.parse().unwrap())
        );
        assert!(
            !answer
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .is_empty()
        );
    }
}

/// A reader who sends half a request and then nothing does not keep others waiting.
#[tokio::test]
async fn half_a_request_holds_nobody_up() {
    use tokio::io::AsyncWriteExt as _;
    let site = Site::new().pages(&["posts/[id]"]).start().await;
    let mut halves = Vec::new();
    for _ in 0..50 {
        let mut stream = tokio::net::TcpStream::connect(site.site()).await.unwrap();
        stream
            .write_all(b"GET /posts/1 HTTP/1.1\r\nhost: a\r\n")
            .await
            .unwrap();
        halves.push(stream);
    }
    assert_eq!(site.get("/posts/1").await.status, 200);
    drop(halves);
    wait_for("their connections to be gone", async || {
        match site.metric("wisr_connections").await {
            0.0 => Ok(()),
            open => Err(open.to_string()),
        }
    })
    .await;
}
