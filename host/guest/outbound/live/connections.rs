//! Where connections go, whom they serve, and whom they trust.

use std::io::Write;

use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;

#[tokio::test]
async fn a_request_arrives_as_the_policy_saw_it() {
    let origin = Origin::start().await;
    let session = session(&client(Resolver::System), &[origin.entry()]);
    let mut request = get(&origin.url("/echo?a=b"));
    for (name, value) in [("host", "evil.example"), ("x-forwarded-for", "10.0.0.1")] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let (status, head) = read(&session, request).await.unwrap();
    assert_eq!(status, 200);
    assert!(head.starts_with("GET /echo?a=b HTTP/1.1\r\n"), "{head}");
    assert!(
        head.contains(&format!("host: {}\r\n", origin.address)),
        "{head}"
    );
    assert!(head.contains("user-agent: wisr\r\n"), "{head}");
    assert!(
        !head.contains("evil") && !head.contains("10.0.0.1"),
        "{head}"
    );
    let [fetch] = &session.fetches()[..] else {
        panic!("one fetch was made");
    };
    assert_eq!(fetch.url, origin.url("/echo?a=b"));
    assert_eq!(fetch.result, Ok(200));
    assert_eq!(fetch.bytes, head.len() as u64);
}

#[tokio::test]
async fn a_redirect_goes_back_to_the_guest() {
    let origin = Origin::start().await;
    let session = session(&client(Resolver::System), &[origin.entry()]);
    let (status, _) = read(&session, get(&origin.url("/redirect"))).await.unwrap();
    assert_eq!(status, 302);
    assert_eq!(session.fetches().len(), 1);
    // Where it leads is for the guest to ask, and is judged like any other question.
    for location in [
        "http://169.254.169.254/",
        "http://127.0.0.1:1/",
        "http://[::1]/",
    ] {
        let error = read(&session, get(location)).await.unwrap_err();
        assert!(
            matches!(error, Error::HttpRequestDenied),
            "{location}: {error}"
        );
    }
}

#[tokio::test]
async fn a_name_is_resolved_once_and_never_again_for_the_same_check() {
    let origin = Origin::start().await;
    let port = origin.address.port();
    let resolver = scripted(&[&["127.0.0.1"], &["169.254.169.254"]]);
    let entries = [format!("http://rebind.test:{port}"), origin.entry()];
    let session = session(&client(resolver), &entries);
    let url = format!("http://rebind.test:{port}/last");
    assert_eq!(read(&session, get(&url)).await.unwrap().1, "bye");
    let error = read(&session, get(&url)).await.unwrap_err();
    assert!(matches!(error, Error::DestinationIpProhibited), "{error}");
}

#[tokio::test]
async fn a_name_of_a_private_address_alone_opens_nothing() {
    let origin = Origin::start().await;
    let port = origin.address.port();
    let resolver = scripted(&[&["127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"]]);
    let session = session(&client(resolver), &[format!("http://api.test:{port}")]);
    let url = format!("http://api.test:{port}/x");
    let error = read(&session, get(&url)).await.unwrap_err();
    assert!(matches!(error, Error::DestinationIpProhibited), "{error}");
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn a_second_address_is_tried_where_the_first_refuses() {
    let origin = Origin::start().await;
    let port = origin.address.port();
    let resolver = scripted(&[&["127.0.0.2", "127.0.0.1"]]);
    let entries = [
        format!("http://api.test:{port}"),
        format!("http://127.0.0.0/8:{port}"),
    ];
    let session = session(&client(resolver), &entries);
    let url = format!("http://api.test:{port}/x");
    assert_eq!(read(&session, get(&url)).await.unwrap().1, "hello");
    let refused = format!("http://127.0.0.2:{port}/x");
    let error = read(&session, get(&refused)).await.unwrap_err();
    assert!(matches!(error, Error::ConnectionRefused), "{error}");
}

#[tokio::test]
async fn this_server_is_not_called() {
    let origin = Origin::start().await;
    let any = SocketAddr::new([0, 0, 0, 0].into(), origin.address.port());
    for own in [origin.address, any] {
        let client = Client::new(ClientConfig {
            own_addresses: vec![own],
            ..ClientConfig::default()
        });
        let session = session(&client.unwrap(), &[origin.entry()]);
        let error = read(&session, get(&origin.url("/x"))).await.unwrap_err();
        assert!(matches!(error, Error::LoopDetected), "{own}: {error}");
    }
}

#[tokio::test]
async fn connections_are_reused_by_their_route_across_generations() {
    let origin = Origin::start().await;
    let client = client(Resolver::System);
    for _ in 0..3 {
        let session = session(&client, &[origin.entry()]);
        read(&session, get(&origin.url("/x"))).await.unwrap();
    }
    assert_eq!(origin.connections(), 1);
    let policy = Arc::new(Policy::parse(&[origin.entry()]).unwrap());
    let deadline = Instant::now() + Duration::from_secs(20);
    let other = client.session(policy, LIMITS, deadline, "/other".into());
    read(&other, get(&origin.url("/x"))).await.unwrap();
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_a_while() {
    let origin = Origin::start().await;
    let client = client(Resolver::System);
    read(&session(&client, &[origin.entry()]), get(&origin.url("/x")))
        .await
        .unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::task::yield_now().await;
    tokio::time::resume();
    read(&session(&client, &[origin.entry()]), get(&origin.url("/x")))
        .await
        .unwrap();
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn parked_connections_of_one_key_are_few() {
    let origin = Origin::start().await;
    let limits = SessionLimits {
        in_flight: 10,
        ..LIMITS
    };
    let client = client(Resolver::System);
    let session = session_with(&client, &[origin.entry()], limits);
    let url = origin.url("/x");
    let together = || futures_util::future::join_all((0..10).map(|_| send(&session, get(&url))));
    // All ten answers are held at once, so that ten connections come back.
    let answers = together().await;
    assert_eq!(origin.connections(), 10);
    for answer in answers {
        answer.unwrap().into_body().collect().await.unwrap();
    }
    let answers = together().await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(origin.connections(), 14);
}

#[tokio::test]
async fn an_answer_left_unread_closes_its_connection() {
    let origin = Origin::start().await;
    let session = session(&client(Resolver::System), &[origin.entry()]);
    drop(send(&session, get(&origin.url("/big"))).await.unwrap());
    read(&session, get(&origin.url("/x"))).await.unwrap();
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn a_reused_connection_obeys_the_policy_of_its_next_user() {
    let origin = Origin::start().await;
    let port = origin.address.port();
    let client = client(scripted(&[&["127.0.0.1"], &["127.0.0.1"]]));
    let name = format!("http://api.test:{port}");
    let url = format!("{name}/x");
    let before = session(&client, &[name.clone(), origin.entry()]);
    read(&before, get(&url)).await.unwrap();
    let after = session(&client, &[name]);
    let error = read(&after, get(&url)).await.unwrap_err();
    assert!(matches!(error, Error::DestinationIpProhibited), "{error}");
}

#[tokio::test]
async fn a_connection_lost_between_uses_is_replaced_where_that_is_safe() {
    let origin = Origin::start().await;
    let session = session(&client(Resolver::System), &[origin.entry()]);
    let url = origin.url("/once");
    for _ in 0..2 {
        assert_eq!(read(&session, get(&url)).await.unwrap().1, "hello");
    }
    assert_eq!(origin.connections(), 2);
    let request = with_body("POST", &url, Bytes::new());
    let error = read(&session, request).await.unwrap_err();
    assert!(matches!(error, Error::HttpResponseIncomplete), "{error}");
    assert_eq!(origin.connections(), 2);
}

/// A server's TLS for `api.test`, and the PEM file that trusts it.
fn certificate() -> (TlsAcceptor, tempfile::NamedTempFile) {
    certificate_until(None)
}

/// The same, good until the end of a year.
fn certificate_until(year: Option<i32>) -> (TlsAcceptor, tempfile::NamedTempFile) {
    let mut params = rcgen::CertificateParams::new(vec!["api.test".to_owned()]).unwrap();
    if let Some(year) = year {
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(cert.pem().as_bytes()).unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), file)
}

#[tokio::test]
async fn tls_holds_the_certificate_against_the_name() {
    let (tls, roots) = certificate();
    let origin = Origin::start_with(Some(tls)).await;
    let port = origin.address.port();
    let entries = [
        format!("https://*.test:{port}"),
        format!("https://{}", origin.address),
    ];
    let trusting = |extra_roots| {
        let resolver = scripted(&[&["127.0.0.1"], &["127.0.0.1"]]);
        let config = ClientConfig {
            extra_roots,
            resolver,
            ..ClientConfig::default()
        };
        session(&Client::new(config).unwrap(), &entries)
    };
    let url = |name: &str| format!("https://{name}:{port}/x");

    let knows_it = trusting(Some(roots.path().to_owned()));
    let answer = read(&knows_it, get(&url("api.test"))).await;
    assert_eq!(answer.unwrap().1, "hello");
    let error = read(&knows_it, get(&url("other.test"))).await.unwrap_err();
    assert!(matches!(error, Error::TlsCertificateError), "{error}");

    let knows_nobody = trusting(None);
    let error = read(&knows_nobody, get(&url("api.test")))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::TlsCertificateError), "{error}");
}

/// TLS that is right in all but one thing is refused.
#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let (tls, roots) = certificate_until(Some(2001));
    let origin = Origin::start_with(Some(tls)).await;
    let port = origin.address.port();
    let entries = [
        format!("https://api.test:{port}"),
        format!("https://{}", origin.address),
    ];
    let config = ClientConfig {
        extra_roots: Some(roots.path().to_owned()),
        resolver: scripted(&[&["127.0.0.1"]]),
        ..ClientConfig::default()
    };
    let session = session(&Client::new(config).unwrap(), &entries);
    let url = format!("https://api.test:{port}/x");
    let error = read(&session, get(&url)).await.unwrap_err();
    assert!(matches!(error, Error::TlsCertificateError), "{error}");
}

#[test]
fn unusable_extra_roots_are_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_owned();
    let config = ClientConfig {
        extra_roots: Some(path.clone()),
        ..ClientConfig::default()
    };
    let error = Client::new(config).err().unwrap().to_string();
    assert!(error.starts_with(&path.display().to_string()), "{error}");
    assert!(error.contains("no certificate"), "{error}");
}
