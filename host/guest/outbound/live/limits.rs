//! What a session refuses, and what it cuts off.

use std::time::Duration;

use futures_util::future::join_all;

use super::*;

/// The log's reason for the last fetch.
fn reason(session: &Session) -> String {
    session.fetches().pop().unwrap().result.unwrap_err()
}

#[tokio::test]
async fn nothing_is_granted_by_default() {
    let origin = Origin::start().await;
    let session = session(&client(Resolver::System), &[]);
    let error = read(&session, get(&origin.url("/x"))).await.unwrap_err();
    assert!(matches!(error, Error::HttpRequestDenied), "{error}");
    let entry = origin.entry();
    assert_eq!(
        reason(&session),
        format!("not allowed: add \"{entry}\" to outbound of /posts/[id]")
    );
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn urls_in_disguise_and_tunnels_are_refused() {
    let origin = Origin::start().await;
    let session = session(&client(Resolver::System), &[origin.entry()]);
    let port = origin.address.port();
    for host in ["0x7f.1", "2130706433", "0177.0.0.1", "user:pw@127.0.0.1"] {
        let url = format!("http://{host}:{port}/");
        let error = read(&session, get(&url)).await.unwrap_err();
        assert!(
            matches!(error, Error::HttpRequestUriInvalid),
            "{url}: {error}"
        );
    }
    assert!(
        !session.fetches()[3].url.contains("pw"),
        "a password was logged"
    );
    for method in ["CONNECT", "TRACE"] {
        let request = with_body(method, &origin.url("/"), Bytes::new());
        let error = read(&session, request).await.unwrap_err();
        assert!(matches!(error, Error::HttpRequestMethodInvalid), "{error}");
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn the_bytes_of_all_answers_are_capped_together() {
    let origin = Origin::start().await;
    let limits = SessionLimits { bytes: 8, ..LIMITS };
    let session = session_with(&client(Resolver::System), &[origin.entry()], limits);
    assert_eq!(
        read(&session, get(&origin.url("/x"))).await.unwrap().1,
        "hello"
    );
    let error = read(&session, get(&origin.url("/x"))).await.unwrap_err();
    assert!(
        matches!(error, Error::HttpResponseBodySize(Some(8))),
        "{error}"
    );
    let said = "status 200, then: the generation received more than 8 bytes";
    assert_eq!(reason(&session), said);
}

#[tokio::test]
async fn the_bytes_of_requests_are_capped() {
    let origin = Origin::start().await;
    let limits = SessionLimits {
        bytes: 1000,
        ..LIMITS
    };
    let session = session_with(&client(Resolver::System), &[origin.entry()], limits);
    let request = with_body("POST", &origin.url("/mute"), vec![b'x'; 1001].into());
    let error = read(&session, request).await.unwrap_err();
    assert!(
        matches!(error, Error::HttpRequestBodySize(Some(1000))),
        "{error}"
    );
}

#[tokio::test]
async fn a_dripping_answer_ends_with_the_generation() {
    let origin = Origin::start().await;
    let policy = Arc::new(Policy::parse(&[origin.entry()]).unwrap());
    let deadline = Instant::now() + Duration::from_millis(300);
    let client = client(Resolver::System);
    let session = client.session(policy, LIMITS, deadline, "/a".into());
    let error = read(&session, get(&origin.url("/drip"))).await.unwrap_err();
    assert!(matches!(error, Error::ConnectionReadTimeout), "{error}");
    let late = deadline.elapsed();
    assert!(late < Duration::from_secs(2), "{late:?} late");
}

#[tokio::test]
async fn the_guest_may_lose_patience_sooner() {
    let origin = Origin::start().await;
    let session = session(&client(Resolver::System), &[origin.entry()]);
    let brief = Some(Duration::from_millis(50));
    let options = RequestOptions {
        first_byte_timeout: brief,
        ..RequestOptions::default()
    };
    let answer = send_with(&session, get(&origin.url("/mute")), options).await;
    assert!(matches!(answer, Err(Error::ConnectionReadTimeout)));
    assert_eq!(reason(&session), "no answer within 50 ms");
    let options = RequestOptions {
        between_bytes_timeout: brief,
        ..RequestOptions::default()
    };
    let answer = send_with(&session, get(&origin.url("/stall")), options).await;
    let error = answer.unwrap().into_body().collect().await.unwrap_err();
    assert!(matches!(error, Error::ConnectionReadTimeout), "{error}");
}

#[tokio::test]
async fn a_pause_is_counted_from_the_last_bytes() {
    let origin = Origin::start().await;
    let session = session(&client(Resolver::System), &[origin.entry()]);
    let options = RequestOptions {
        between_bytes_timeout: Some(Duration::from_millis(400)),
        ..RequestOptions::default()
    };
    let answer = send_with(&session, get(&origin.url("/slow")), options).await;
    let body = answer.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "hello");
}

#[tokio::test]
async fn a_head_without_end_is_cut_off() {
    let origin = Origin::start().await;
    let session = session(&client(Resolver::System), &[origin.entry()]);
    let error = read(&session, get(&origin.url("/head"))).await.unwrap_err();
    assert!(
        matches!(error, Error::HttpResponseHeaderSectionSize(_)),
        "{error}"
    );
}

#[tokio::test]
async fn an_unasked_upgrade_is_refused() {
    let origin = Origin::start().await;
    let session = session(&client(Resolver::System), &[origin.entry()]);
    let error = read(&session, get(&origin.url("/switch")))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::HttpUpgradeFailed), "{error}");
}

#[tokio::test]
async fn requests_beyond_the_limit_fail_and_leave_one_row() {
    let origin = Origin::start().await;
    let limits = SessionLimits {
        requests: 2,
        ..LIMITS
    };
    let session = session_with(&client(Resolver::System), &[origin.entry()], limits);
    let mut failures = 0;
    for _ in 0..5 {
        match read(&session, get(&origin.url("/x"))).await {
            Ok(_) => {}
            Err(Error::ConnectionLimitReached) => failures += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(failures, 3);
    assert_eq!(session.fetches().len(), 3);
}

#[tokio::test]
async fn requests_in_flight_wait_for_their_turn() {
    let origin = Origin::start().await;
    let limits = SessionLimits {
        in_flight: 2,
        ..LIMITS
    };
    let session = session_with(&client(Resolver::System), &[origin.entry()], limits);
    let url = origin.url("/gate");
    let all = join_all((0..5).map(|_| send(&session, get(&url))));
    let driver = async {
        origin.waiting(2).await;
        let third = tokio::time::timeout(Duration::from_millis(100), origin.waiting(3));
        assert!(third.await.is_err(), "three were in flight");
        origin.seen.gate.add_permits(5);
    };
    // The answers stay unread: they must not hold the turns of those that wait.
    let (answers, ()) = tokio::join!(all, driver);
    assert!(answers.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_turn_that_never_comes_ends_with_the_generation() {
    let origin = Origin::start().await;
    let policy = Arc::new(Policy::parse(&[origin.entry()]).unwrap());
    let limits = SessionLimits {
        in_flight: 0,
        ..LIMITS
    };
    let deadline = Instant::now() + Duration::from_millis(50);
    let session = client(Resolver::System).session(policy, limits, deadline, "/a".into());
    let error = read(&session, get(&origin.url("/x"))).await.unwrap_err();
    assert!(matches!(error, Error::ConnectionLimitReached), "{error}");
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn a_length_without_a_body_is_not_sent() {
    let origin = Origin::start().await;
    let session = session(&client(Resolver::System), &[origin.entry()]);
    for method in ["GET", "POST"] {
        let mut request = with_body(method, &origin.url("/echo"), Bytes::new());
        let fifty = http::HeaderValue::from(50);
        request.headers_mut().insert("content-length", fifty);
        let (_, head) = read(&session, request).await.unwrap();
        let head = head.to_ascii_lowercase();
        assert!(!head.contains("content-length: 50"), "{head}");
    }
}

#[tokio::test]
async fn many_long_urls_do_not_fill_an_incident() {
    let session = session(&client(Resolver::System), &[]);
    for _ in 0..LIMITS.requests {
        let url = format!("http://{0}.example/{0}", "a".repeat(3_000));
        assert!(send(&session, get(&url)).await.is_err());
    }
    let fetches = session.fetches();
    let kept: usize = fetches.iter().map(|fetch| fetch.url.len()).sum();
    assert_eq!(fetches.len(), 32);
    assert!(kept < 40_000, "{kept}");
}

#[tokio::test]
async fn a_long_host_does_not_fill_the_log() {
    let session = session(&client(Resolver::System), &[]);
    let url = format!("http://{}/", "a".repeat(60_000));
    assert!(send(&session, get(&url)).await.is_err());
    let reason = session.fetches()[0].result.clone().unwrap_err();
    assert!(reason.len() < 3_000, "{}", reason.len());
}
