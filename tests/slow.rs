//! Section 9: clients that take their time or come in crowds cost themselves, and nobody else.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::site::{Running, Site, wait_for};

/// Readers who ask for a page and take none of it.
const STALLED: usize = 200;

/// Bytes of the page that they ask for.
const PAGE: usize = 4 << 20;

/// What a stalled connection may cost the server, beside the kernel's buffers: its state, and never
/// a copy of the page.
const COST: u64 = 64 << 10;

async fn stalled(site: &Running, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(site.site()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    // The response has begun.
    stream.read_exact(&mut [0; 1]).await.unwrap();
    stream
}

/// Memory of a stalled connection is bounded: a page is shared by all who are being sent it.
#[tokio::test]
async fn who_takes_nothing_costs_next_to_nothing() {
    let site = Site::new()
        .pages(&["large"])
        .script("/large", json!({"props": {"render": {"huge": PAGE}}}))
        .start()
        .await;
    let whole = site.get("/large").await;
    assert_eq!((whole.status, whole.body.len() >= PAGE), (200, true));
    let before = site.resident();
    let mut readers = Vec::new();
    for _ in 0..STALLED {
        readers.push(stalled(&site, "/large").await);
    }
    assert_eq!(site.metric("wisr_connections").await, STALLED as f64);
    let grown = site.resident().saturating_sub(before);
    assert!(
        grown < COST * STALLED as u64,
        "{} bytes for each",
        grown / STALLED as u64
    );
    assert_eq!(site.get("/large").await.body, whole.body);
    drop(readers);
    nobody_is_left(&site).await;
}

/// One address has its share of connections; what it has beyond is closed at once, and counted.
#[tokio::test]
async fn one_address_has_no_more_than_its_share() {
    let site = Site::new()
        .pages(&["index"])
        .config("[server]\nconnections-per-address = 3")
        .start()
        .await;
    nobody_is_left(&site).await;
    let mut holders = Vec::new();
    for _ in 0..3 {
        holders.push(TcpStream::connect(site.site()).await.unwrap());
    }
    site.until_metric("wisr_connections", 3.0).await;
    assert_eq!(site.raw(b"GET / HTTP/1.0\r\n\r\n").await, "");
    assert_eq!(site.metric("wisr_connections_refused_total").await, 1.0);
    drop(holders);
    nobody_is_left(&site).await;
    assert_eq!(site.get("/").await.status, 200);
}

async fn nobody_is_left(site: &Running) {
    wait_for("their connections to be gone", async || {
        match site.metric("wisr_connections").await {
            0.0 => Ok(()),
            open => Err(open.to_string()),
        }
    })
    .await;
}
