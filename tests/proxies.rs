//! Section 8: whose request it is that a proxy passes on, by `forwarded`, `x-forwarded-for` and the
//! PROXY protocol; and what goes by it: the access log and the limits of one address.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::deployment::Nginx;
use crate::site::{Running, Site, TOKEN, wait_for};
use crate::tools::tool;

/// A site that writes down who asked for what.
fn logging(server: &str) -> Site {
    let config =
        format!("[server]\n{server}\n[log]\naccess = \"access.log\"\naccess-format = \"json\"\n");
    Site::new().pages(&["posts/[id]"]).config(&config)
}

/// Who asked for the path, by the access log.
async fn asker(site: &Running, path: &str) -> String {
    wait_for(&format!("{path} in the access log"), async || {
        let text = std::fs::read_to_string(site.folder().join("access.log")).unwrap_or_default();
        let mut lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = lines.find(|line| line["path"] == path);
        line.map(|line| line["peer"].as_str().unwrap().to_owned())
            .ok_or(text)
    })
    .await
}

/// Connects from one of the addresses of loopback.
async fn connect(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Sends bytes on such a connection, and reads until it is closed.
async fn say(from: &str, to: SocketAddr, pieces: &[&[u8]]) -> String {
    let mut stream = connect(from, to).await;
    for piece in pieces {
        // Who refuses may have closed already.
        let _ = stream.write_all(piece).await;
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}connection: close\r\n\r\n")
}

/// The last address that no trusted proxy has is the client, whatever stands before it; nobody else
/// may speak for others; what cannot be read counts as the proxy's own.
#[tokio::test]
async fn who_asks_is_whom_the_trusted_proxies_name() {
    let site = logging("trusted-proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]")
        .start()
        .await;
    let rows = [
        ("127.0.0.1", "x-forwarded-for: 192.0.2.1\r\n", "192.0.2.1"),
        (
            "127.0.0.1",
            "X-Forwarded-For: 9.9.9.9, 192.0.2.1\r\n",
            "192.0.2.1",
        ),
        (
            "127.0.0.1",
            "x-forwarded-for: 9.9.9.9\r\nx-forwarded-for: 192.0.2.1\r\n",
            "192.0.2.1",
        ),
        (
            "127.0.0.1",
            "x-forwarded-for: 9.9.9.9, 192.0.2.1, 10.9.9.9\r\n",
            "192.0.2.1",
        ),
        (
            "127.0.0.1",
            "x-forwarded-for: 127.0.0.1, 192.0.2.1\r\n",
            "192.0.2.1",
        ),
        (
            "127.0.0.1",
            "x-forwarded-for: [2001:db8::1]:443\r\n",
            "2001:db8::1",
        ),
        (
            "127.0.0.1",
            "x-forwarded-for: ::ffff:192.0.2.1\r\n",
            "192.0.2.1",
        ),
        (
            "127.0.0.1",
            "x-forwarded-for: 192.0.2.1, unknown\r\n",
            "127.0.0.1",
        ),
        (
            "127.0.0.1",
            "forwarded: for=9.9.9.9, For=\"[2001:db8::1]:80\";proto=https\r\n",
            "2001:db8::1",
        ),
        ("127.0.0.1", "forwarded: for=_hidden\r\n", "127.0.0.1"),
        (
            "127.0.0.1",
            "forwarded: for=\"x, for=192.0.2.1\r\n",
            "127.0.0.1",
        ),
        (
            "127.0.0.1",
            "forwarded: for=9.9.9.9\r\nx-forwarded-for: 192.0.2.1\r\n",
            "127.0.0.1",
        ),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.2", "x-forwarded-for: 192.0.2.1\r\n", "127.0.0.2"),
        ("127.0.0.2", "forwarded: for=192.0.2.1\r\n", "127.0.0.2"),
    ];
    for (number, (from, headers, expected)) in rows.into_iter().enumerate() {
        let path = format!("/posts/{number}");
        let answer = say(from, site.site(), &[request(&path, headers).as_bytes()]).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(asker(&site, &path).await, expected, "{from} {headers}");
    }
    site.until_log("does not say for whom it speaks").await;
}

/// Without a word about proxies nobody is believed, as before.
#[tokio::test]
async fn nobody_is_believed_unasked() {
    let site = logging("").start().await;
    let spoofed = request(
        "/posts/1",
        "x-forwarded-for: 192.0.2.1\r\nforwarded: for=192.0.2.1\r\n",
    );
    say("127.0.0.1", site.site(), &[spoofed.as_bytes()]).await;
    assert_eq!(asker(&site, "/posts/1").await, "127.0.0.1");
}

/// Who guesses tokens behind a proxy is shut out, and nobody else is: whatever they claim to be.
#[tokio::test]
async fn guessing_behind_a_proxy_costs_the_guesser() {
    let site = logging("trusted-proxies = [\"127.0.0.0/8\"]").start().await;
    let call = async |token: &str, chain: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", &*bearer), ("x-forwarded-for", chain)];
        let body = "{\"paths\":[\"/posts/1\"]}";
        site.send("POST", "/api/revalidate", &headers, body)
            .await
            .status
    };
    for guess in 0..12 {
        let told = call("wrong", &format!("9.9.9.{guess}, 192.0.2.1")).await;
        assert_eq!(told, if guess < 10 { 401 } else { 429 }, "{guess}");
    }
    assert_eq!(call(TOKEN, "192.0.2.1").await, 429);
    assert_eq!(call(TOKEN, "192.0.2.2").await, 200);
    // Who says nothing that can be believed is one client, too.
    for _ in 0..12 {
        call("wrong", "unknown").await;
    }
    assert_eq!(call(TOKEN, "x").await, 429);
}

fn v2(family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x21, family]);
    header.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    header.extend(body);
    header
}

/// Connections begin with the PROXY protocol, in either version, or they are closed; and only
/// trusted proxies have any.
#[tokio::test]
async fn the_proxy_protocol_says_for_whom_a_connection_is() {
    let proxies = "trusted-proxies = [\"127.0.0.1\"]\nproxy-protocol = true";
    let site = logging(proxies).start().await;
    let binary = v2(0x11, &[192, 0, 2, 7, 127, 0, 0, 1, 1, 0, 0, 80, 4, 0, 1, 0]);
    let mapped = b"PROXY TCP6 ::ffff:192.0.2.1 ::1 4660 80\r\n";
    let local = [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[0x20, 0, 0, 0]].concat();
    let rows: [(&[u8], &str); 6] = [
        (b"PROXY TCP4 192.0.2.1 127.0.0.1 4660 80\r\n", "192.0.2.1"),
        (b"PROXY TCP6 2001:db8::1 ::1 4660 80\r\n", "2001:db8::1"),
        (mapped, "192.0.2.1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (&binary, "192.0.2.7"),
        (&local, "127.0.0.1"),
    ];
    for (number, (header, expected)) in rows.into_iter().enumerate() {
        let path = format!("/posts/{number}");
        // Whom a client names is believed of trusted proxies only, and it is none.
        let spoofed = request(&path, "x-forwarded-for: 9.9.9.9\r\n");
        let spoofed = match expected {
            "127.0.0.1" => request(&path, ""),
            _ => spoofed,
        };
        let (start, end) = header.split_at(header.len() / 2);
        let answer = say("127.0.0.1", site.site(), &[start, end, spoofed.as_bytes()]).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(asker(&site, &path).await, expected);
    }
    let plain = request("/posts/1", "");
    let trusted = [rows[0].0, plain.as_bytes()].concat();
    for (from, bytes) in [
        ("127.0.0.1", plain.as_bytes()),
        ("127.0.0.1", b"PROXY NONSENSE\r\nGET / HTTP/1.1\r\n\r\n"),
        ("127.0.0.2", &trusted),
        ("127.0.0.2", plain.as_bytes()),
    ] {
        assert_eq!(say(from, site.site(), &[bytes]).await, "", "{from}");
    }
    assert_eq!(site.metric("wisr_connections_refused_total").await, 4.0);
    site.until_log("a trusted proxy was not understood").await;
    // Operators connect themselves.
    assert_eq!(site.admin("/livez").await.status, 200);
}

/// The connections of one client are counted, whichever proxy passes them on.
#[tokio::test]
async fn the_proxy_protocol_counts_connections_by_client() {
    let site = logging(
        "connections-per-address = 2\ntrusted-proxies = [\"127.0.0.0/8\"]\nproxy-protocol = true",
    )
    .start()
    .await;
    let open = async |client: &str, path: &str| {
        let mut stream = connect("127.0.0.1", site.site()).await;
        let header = format!("PROXY TCP4 {client} 127.0.0.1 1 80\r\n");
        stream.write_all(header.as_bytes()).await.unwrap();
        let keep = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(keep.as_bytes()).await.unwrap();
        let mut start = [0; 12];
        let told = stream.read_exact(&mut start).await;
        told.ok()
            .map(|_| (stream, String::from_utf8_lossy(&start).into_owned()))
    };
    let mut held = Vec::new();
    for client in ["192.0.2.1", "192.0.2.1", "192.0.2.2"] {
        let (stream, start) = open(client, "/posts/1").await.expect("there is room");
        assert_eq!(start, "HTTP/1.1 200");
        held.push(stream);
    }
    assert!(open("192.0.2.1", "/posts/1").await.is_none());
    assert!(open("192.0.2.2", "/posts/1").await.is_some());
}

/// nginx in front, as the README sets it up: what a client writes itself counts for nothing.
#[tokio::test]
async fn nginx_says_who_asks() {
    let Some(program) = tool("nginx", "apt-get install nginx-light") else {
        return;
    };
    let site = logging("trusted-proxies = [\"127.0.0.1\"]").start().await;
    let nginx = Nginx::before(&program, &[&site]).await;
    let spoofed = request("/posts/1", "x-forwarded-for: 127.0.0.1, 9.9.9.9\r\n");
    let answer = say("127.0.0.7", nginx.address, &[spoofed.as_bytes()]).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(asker(&site, "/posts/1").await, "127.0.0.7");
}

/// nginx in front that passes connections on, with `proxy_protocol on`.
#[tokio::test]
async fn nginx_says_who_connects() {
    let module = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
    let (Some(program), true) = (
        tool("nginx", "apt-get install nginx-light"),
        module.exists(),
    ) else {
        let is_required = std::env::var_os("WISR_TEST_TOOLS").is_some_and(|it| it == "required");
        assert!(!is_required, "needs libnginx-mod-stream");
        return;
    };
    let proxies = "trusted-proxies = [\"127.0.0.1\"]\nproxy-protocol = true";
    let site = logging(proxies).start().await;
    let to = site.site();
    let nginx = Nginx::start(&program, |address, _| {
        format!(
            "load_module {};\nstream {{\nserver {{\nlisten {address};\nproxy_pass {to};\n\
             proxy_protocol on;\n}}\n}}\n",
            module.display()
        )
    })
    .await;
    let asked = request("/posts/1", "x-forwarded-for: 9.9.9.9\r\n");
    let answer = say("127.0.0.7", nginx.address, &[asked.as_bytes()]).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(asker(&site, "/posts/1").await, "127.0.0.7");
}

/// Who has made as many pages as a client may that nobody asked for before is told when to come
/// back, over whichever address of theirs; other clients, and pages that are there, being made or
/// listed, are not affected.
#[tokio::test]
async fn a_client_has_so_many_pages_made_and_no_more() {
    let site = Site::new()
        .pages(&["index", "posts/[id]", "listed/[id]"])
        .config(
            "[server]\ntrusted-proxies = [\"127.0.0.1\"]\n[generations]\nfirst-per-client = 3\n\
             [routes.\"/\"]\nquery = [\"q\"]",
        )
        .listed(
            "/listed/[id]",
            "listed",
            json!({ "paths": [{ "id": "1" }, { "id": "2" }], "fallback": "blocking" }),
        )
        .start()
        .await;
    let get = async |client: &str, path: &str| {
        let headers = [("x-forwarded-for", client)];
        site.get_with(path, &headers).await
    };
    let (one, same, other) = ("2001:db8::1", "2001:db8::ffff", "192.0.2.1");
    for path in ["/posts/1", "/?q=1", "/listed/unlisted"] {
        assert_eq!(get(one, path).await.status, 200, "{path}");
    }
    for (client, path) in [
        (one, "/posts/2"),
        (same, "/posts/2"),
        (one, "/?q=2"),
        (one, "/_wisr/data/posts/2.json"),
    ] {
        let answer = get(client, path).await;
        assert_eq!(answer.status, 429, "{path}: {}", answer.text());
        let wait: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
        assert_eq!(answer.header("cache-control"), "private, no-store");
    }
    assert!(site.origin.calls("/posts/2").is_empty());
    for (client, path) in [
        // What is there, and what the site itself names.
        (one, "/posts/1"),
        (one, "/?q=1"),
        (one, "/"),
        (one, "/?unknown=1"),
        (one, "/listed/1"),
        (other, "/posts/2"),
        (one, "/posts/2"),
    ] {
        assert_eq!(get(client, path).await.status, 200, "{client} {path}");
    }
    // Who waits with others for what is being made already pays nothing.
    site.origin.hold("/posts/3");
    let mut first = site.reader();
    let headers = [("x-forwarded-for", other)];
    let first = tokio::spawn(async move { first.send("GET", "/posts/3", &headers, "").await });
    site.until_calls("/posts/3", 1).await;
    let mut second = site.reader();
    let headers = [("x-forwarded-for", one)];
    let second = tokio::spawn(async move { second.send("GET", "/posts/3", &headers, "").await });
    site.origin.release("/posts/3");
    for reader in [first, second] {
        assert_eq!(reader.await.unwrap().unwrap().status, 200);
    }
    let throttled = "wisr_served_total{verdict=\"throttled\"}";
    assert_eq!(site.metric_or_zero(throttled).await, 4.0);
}

/// Without a word about proxies it is not known who is a client, and nobody is held to a number.
#[tokio::test]
async fn where_clients_are_not_known_pages_are_made_for_all() {
    let site = Site::new().pages(&["posts/[id]"]).start().await;
    for number in 0..70 {
        let path = format!("/posts/{number}");
        assert_eq!(site.get(&path).await.status, 200, "{path}");
    }
}
