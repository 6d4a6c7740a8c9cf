//! Section 5: systems that have a payload of their own say what has changed. The payloads are
//! written by hand after the public documentation of each, and cut down.

use std::time::UNIX_EPOCH;

use data_encoding::{BASE64, HEXLOWER};
use ring::hmac;
use serde_json::{Value, json};

use crate::client::Response;
use crate::site::{Running, Site, all};

/// A payload from `tests/fixtures/webhooks`.
macro_rules! payload {
    ($name:literal) => {
        include_str!(concat!("fixtures/webhooks/", $name, ".json"))
    };
}

const CONTENTFUL: &str = r#"
    [webhooks.contentful]
    secret = "contentful s3cret"

    [[webhooks.contentful.on]]
    when = { x-contentful-topic = "ContentManagement.Entry.publish", "/sys/contentType/sys/id" = "post" }
    paths = ["/posts/{/fields/slug/en-US}"]
    tags = ["post:{/sys/id}"]

    [[webhooks.contentful.on]]
    when = { x-contentful-topic = ["ContentManagement.Entry.unpublish", "ContentManagement.Entry.delete"] }
    tags = ["post:{/sys/id}"]
    mode = "regenerate"
"#;

const GITHUB: &str = r#"
    [webhooks.github]
    scheme = "github"
    secret = "the github s3cret"
    when = { x-github-event = ["issues", "issue_comment"] }
    paths = ["/issues/{/issue/number}", "/labels/{/issue/labels/*/name}"]
    tags = ["issues"]
"#;

pub(crate) const CMS: &str = r#"
    [webhooks.cms]
    scheme = "standard-webhooks"
    secret = "whsec_c2VjcmV0IG9mIHRoZSBjbXM="
    when = { "/type" = ["article.published", "article.removed"] }
    paths = ["{+/data/url}", "/{/data/locales}/articles/{/data/id}"]
    tags = ["author:{/data/author/id}", "category:{/data/categories/*/slug}"]
"#;

async fn deliver(site: &Running, name: &str, headers: &[(&str, &str)], body: &str) -> Response {
    let path = format!("/api/webhooks/{name}");
    site.send("POST", &path, headers, body).await
}

pub(crate) fn signed(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

/// A delivery as GitHub makes it.
async fn github(site: &Running, event: &str, body: &str) -> Response {
    let signature = HEXLOWER.encode(&signed(b"the github s3cret", body));
    let signature = format!("sha256={signature}");
    let headers = [
        ("x-github-event", event),
        ("x-hub-signature-256", &signature),
    ];
    deliver(site, "github", &headers, body).await
}

/// A delivery as the Standard Webhooks specification has it, signed so many seconds ago.
async fn cms(site: &Running, id: &str, ago: i64, body: &str) -> Response {
    let time = now() - ago;
    cms_at(site, id, time, body).await
}

fn now() -> i64 {
    UNIX_EPOCH.elapsed().unwrap().as_secs().cast_signed()
}

/// A delivery that is signed for that second.
async fn cms_at(site: &Running, id: &str, time: i64, body: &str) -> Response {
    let time = time.to_string();
    let signature = BASE64.encode(&signed(
        b"secret of the cms",
        &format!("{id}.{time}.{body}"),
    ));
    let signature = format!("v1,{signature}");
    let headers = [
        ("webhook-id", id),
        ("webhook-timestamp", &time),
        ("webhook-signature", &signature),
    ];
    deliver(site, "cms", &headers, body).await
}

fn results(told: &Value) -> Vec<String> {
    let results = told["results"].as_array().unwrap().iter();
    results
        .map(|result| {
            let target = result.get("path").or_else(|| result.get("tag")).unwrap();
            format!(
                "{} {}",
                target.as_str().unwrap(),
                result["status"].as_str().unwrap()
            )
        })
        .collect()
}

/// Contentful: an entry is published, and its page is the new one; it is unpublished, and its page
/// is gone, though the payload says no more of it than its id.
#[tokio::test]
async fn contentful_publishes_and_unpublishes() {
    let tags = json!({"tags": ["post:5KsDBWseXY6QegucYAoacS"]});
    let page = "/posts/a-harbour-without-lights";
    let site = Site::new()
        .pages(&["posts/[slug]"])
        .script(page, tags.clone())
        .config(CONTENTFUL)
        .start()
        .await;
    assert_eq!(site.get(page).await.n(), 1);
    let deliver = async |topic: &str, body: &str| {
        let topic = format!("ContentManagement.Entry.{topic}");
        let headers = [
            ("x-webhook-secret", "contentful s3cret"),
            ("x-contentful-topic", &topic),
            (
                "content-type",
                "application/vnd.contentful.management.v1+json",
            ),
        ];
        deliver(&site, "contentful", &headers, body).await
    };
    let published = deliver("publish", payload!("contentful-publish")).await;
    assert_eq!(published.status, 200, "{}", published.text());
    assert_eq!(published.header("cache-control"), "private, no-store");
    let told = published.json();
    assert_eq!(told["revalidated"], true);
    let post = "post:5KsDBWseXY6QegucYAoacS stale";
    assert_eq!(results(&told), [&format!("{page} regenerated"), post]);
    let answer = site.get(page).await;
    assert_eq!((answer.verdict(), answer.n()), ("HIT", 2));

    site.origin.script(page, json!({"outcome": "not-found"}));
    let gone = deliver("unpublish", payload!("contentful-unpublish")).await;
    assert_eq!(gone.status, 200, "{}", gone.text());
    assert_eq!(
        results(&gone.json()),
        [post, &format!("{page} regenerated")]
    );
    let answer = site.get(page).await;
    assert_eq!((answer.status, answer.verdict()), (404, "HIT"));

    site.origin.script(page, tags);
    deliver("publish", payload!("contentful-publish")).await;
    assert_eq!(site.get(page).await.status, 200);

    // What no rule is for is taken and does nothing.
    let saved = deliver("auto_save", payload!("contentful-publish")).await;
    assert_eq!(
        (saved.status, &saved.json()["revalidated"]),
        (200, &json!(false))
    );
    assert!(
        saved.text().contains("`contentful`: no rule is for"),
        "{}",
        saved.text()
    );
}

/// GitHub: an issue is edited, or commented on, and its page and the list are made anew.
#[tokio::test]
async fn github_tells_of_issues_and_comments() {
    let site = Site::new()
        .pages(&["issues/[number]", "labels/[name]"])
        .config(GITHUB)
        .start()
        .await;
    for (event, body, expected) in [
        (
            "issues",
            payload!("github-issue"),
            &[
                "/issues/42 regenerated",
                "/labels/docs regenerated",
                "/labels/good%20first%20issue regenerated",
                "issues stale",
            ][..],
        ),
        (
            "issue_comment",
            payload!("github-comment"),
            &["/issues/42 regenerated", "issues stale"],
        ),
    ] {
        let answer = github(&site, event, body).await;
        assert_eq!(answer.status, 200, "{event}: {}", answer.text());
        assert_eq!(results(&answer.json()), expected, "{event}");
    }
    let page = site.get("/issues/42").await;
    assert_eq!((page.verdict(), page.n()), ("HIT", 2));
    assert_eq!(
        site.get("/labels/good%20first%20issue").await.verdict(),
        "HIT"
    );
    let ping = github(&site, "ping", payload!("github-ping")).await;
    assert_eq!(
        (ping.status, &ping.json()["revalidated"]),
        (200, &json!(false))
    );
    // Whoever presses "Redeliver" sends the same once more, and means it.
    assert_eq!(
        github(&site, "issue_comment", payload!("github-comment"))
            .await
            .status,
        200
    );
    let form = format!(
        "payload={}",
        payload!("github-issue").replace(['\n', ' '], "")
    );
    let unread = github(&site, "issues", &form).await;
    assert_eq!(unread.status, 400);
    assert!(
        unread.text().contains("application/json"),
        "{}",
        unread.text()
    );
}

/// Any system after the Standard Webhooks specification: several pages of one delivery, which is
/// taken once.
#[tokio::test]
async fn a_delivery_is_taken_once() {
    let site = Site::new()
        .pages(&["[lang]/articles/[id]", "guides/[...slug]"])
        .config(CMS)
        .start()
        .await;
    let body = payload!("cms");
    let answer = cms(&site, "msg_1", 0, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        results(&answer.json()),
        [
            "/guides/first/steps regenerated",
            "/de/articles/7 regenerated",
            "/fr/articles/7 regenerated",
            "author:12 stale",
            "category:tea stale",
            "category:sea & salt stale",
        ]
    );
    assert_eq!(site.get("/guides/first/steps").await.verdict(), "HIT");
    // The same once more; another delivery of the same event; one that is signed for later.
    let time = now() - 60;
    for (id, time, status) in [
        ("msg_2", time, 200),
        ("msg_2", time, 409),
        ("msg_2", time + 1, 200),
        ("msg_3", time, 200),
    ] {
        let answer = cms_at(&site, id, time, body).await;
        assert_eq!(answer.status, status, "{id} {time}: {}", answer.text());
    }
    for ago in [400, -400] {
        let late = cms(&site, "msg_3", ago, body).await;
        assert_eq!(late.status, 401);
        assert!(late.text().contains("clocks"), "{}", late.text());
    }
}

/// What failed may be sent again, byte for byte; what was done may not, also not at the same time.
#[tokio::test]
async fn a_replay_is_refused_and_a_retry_is_not() {
    let site = Site::new()
        .pages(&["posts/[id]"])
        .config("[webhooks.shop]\nscheme = \"stripe\"\nsecret = \"the shop's own s3cret\"\npaths = [\"/posts/{/id}\"]")
        .start()
        .await;
    let delivery = |body: &str| {
        let time = UNIX_EPOCH.elapsed().unwrap().as_secs();
        let signature =
            HEXLOWER.encode(&signed(b"the shop's own s3cret", &format!("{time}.{body}")));
        format!("t={time},v1={signature}")
    };
    let body = r#"{"id": 1}"#;
    let signature = delivery(body);
    let send = async || deliver(&site, "shop", &[("stripe-signature", &signature)], body).await;
    site.origin.script("/posts/1", json!({"outcome": "panic"}));
    let failed = send().await;
    assert_eq!(
        (failed.status, &failed.json()["revalidated"]),
        (500, &json!(false))
    );
    assert_eq!(results(&failed.json()), ["/posts/1 failed"]);
    site.origin.heal("/posts/1");
    assert_eq!(send().await.status, 200);
    let replayed = send().await;
    assert_eq!(replayed.status, 409);
    assert!(
        replayed.text().contains("taken already"),
        "{}",
        replayed.text()
    );

    let body = r#"{"id": 2}"#;
    let signature = delivery(body);
    site.origin.hold("/posts/2");
    let crowd: Vec<_> = (0..8)
        .map(|_| {
            let (mut sender, signature) = (site.reader(), signature.clone());
            tokio::spawn(async move {
                let headers = [("stripe-signature", &*signature)];
                sender
                    .send("POST", "/api/webhooks/shop", &headers, body)
                    .await
                    .unwrap()
            })
        })
        .collect();
    site.until_calls("/posts/2", 1).await;
    site.origin.release("/posts/2");
    let mut statuses: Vec<_> = all(crowd)
        .await
        .iter()
        .map(|answer| answer.status)
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409, 409, 409, 409, 409, 409]);
    assert_eq!(site.origin.count("/posts/2"), 1);
}

/// A sender that does not wait does not end what it told of.
#[tokio::test]
async fn a_sender_that_hangs_up_ends_nothing() {
    let site = Site::new()
        .pages(&["posts/[id]"])
        .config("[webhooks.list]\nsecret = \"the list's own s3cret\"\npaths = [\"/posts/{/ids}\"]")
        .config("[generations]\nconcurrency = 1")
        .start()
        .await;
    site.origin.hold("/posts/1");
    let ids: Vec<u32> = (1..=40).collect();
    let body = json!({"ids": ids}).to_string();
    let mut sender = site.reader();
    let sending = tokio::spawn(async move {
        let secret = [("x-webhook-secret", "the list's own s3cret")];
        sender
            .send("POST", "/api/webhooks/list", &secret, &body)
            .await
    });
    site.until_calls("/posts/1", 1).await;
    sending.abort();
    assert!(sending.await.unwrap_err().is_cancelled());
    site.origin.release("/posts/1");
    site.until_calls("/posts/40", 1).await;
}

/// No value leaves its place, and what a payload lacks is named. Nothing is done then.
#[tokio::test]
async fn a_payload_that_means_no_page_does_nothing() {
    let site = Site::new()
        .pages(&["index", "posts/[slug]", "admin"])
        .config("[webhooks.cms]\nsecret = \"the cms' own s3cret\"\npaths = [\"/posts/{/slug}\"]\ntags = [\"id:{/id}\"]")
        .start()
        .await;
    let send = async |body: &str| {
        deliver(
            &site,
            "cms",
            &[("x-webhook-secret", "the cms' own s3cret")],
            body,
        )
        .await
    };
    for (body, status, part) in [
        (
            r#"{"id": 1}"#,
            422,
            "webhook `cms`: the payload has nothing at `/slug`",
        ),
        (r#"{"slug": "a"}"#, 422, "nothing at `/id`"),
        (r#"{"slug": null, "id": 1}"#, 422, "nothing at `/slug`"),
        (
            r#"{"slug": {}, "id": 1}"#,
            422,
            "no text, number or truth value",
        ),
        (r#"{"slug": "..", "id": 1}"#, 422, "empty or dot segment"),
        (r#"{"slug": "", "id": 1}"#, 422, "empty or dot segment"),
        (r#"{"slug": "a", "id": "\n"}"#, 422, "control character"),
        (r#"{"slug": "a", "#, 400, "no JSON"),
        ("", 400, "no JSON"),
        ("[]", 422, "nothing at `/slug`"),
    ] {
        let answer = send(body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(part), "{body}: {message}");
    }
    assert_eq!(site.origin.count("/posts/a"), 0);
    for (slug, path) in [
        ("../admin", "/posts/..%2Fadmin"),
        ("a/../../admin", "/posts/a%2F..%2F..%2Fadmin"),
        ("a?b#c", "/posts/a%3Fb%23c"),
    ] {
        let body = json!({"slug": slug, "id": 1}).to_string();
        let answer = send(&body).await;
        assert_eq!(results(&answer.json())[0], format!("{path} regenerated"));
        let page = site.get(path).await;
        assert_eq!((page.status, page.verdict()), (200, "HIT"), "{path}");
    }
    assert_eq!(site.origin.count("/admin"), 1);
    let large = format!(r#"{{"slug": "a", "id": "{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(send(&large).await.status, 413);
}

/// Who cannot sign is not heard, and not for long.
#[tokio::test]
async fn only_the_sender_is_heard() {
    let site = Site::new().pages(&["index"]).config(GITHUB).start().await;
    let body = payload!("github-issue");
    let other = HEXLOWER.encode(&signed(b"another secret", body));
    let of_other = HEXLOWER.encode(&signed(b"the github s3cret", "{}"));
    for signature in [
        None,
        Some(String::new()),
        Some(format!("sha256={other}")),
        Some(format!("sha256={of_other}")),
        Some("sha256=zz".to_owned()),
    ] {
        let mut headers = vec![("x-github-event", "issues")];
        headers.extend(signature.as_deref().map(|it| ("x-hub-signature-256", it)));
        let refused = deliver(&site, "github", &headers, body).await;
        assert_eq!(refused.status, 401, "{signature:?}");
        assert_eq!(refused.json(), json!({"message": "Invalid signature"}));
        assert_eq!(refused.header("www-authenticate"), "Signature");
    }
    for _ in 0..10 {
        deliver(&site, "github", &[], body).await;
    }
    let refused = deliver(&site, "github", &[], body).await;
    let told = refused.json()["message"].to_string();
    assert_eq!(refused.status, 429, "{told}");
    assert!(
        told.contains("Too many invalid signatures: try again in"),
        "{told}"
    );
    // Behind a shared address the right one still passes.
    assert_eq!(
        github(&site, "ping", payload!("github-ping")).await.status,
        200
    );
    let asked = site.get("/api/webhooks/github").await;
    assert_eq!((asked.status, asked.header("allow")), (405, "POST"));
    assert_eq!(deliver(&site, "other", &[], body).await.status, 404);
    assert_eq!(site.origin.count("/issues/42"), 0);
}

/// Webhooks come, change and go with `wisr.toml`; a secret may be in the environment; a mistake is
/// told with its place and changes nothing; and modules may have the other addresses.
#[tokio::test]
async fn webhooks_are_configured_while_the_server_runs() {
    let script = "shift; WISR_WEBHOOK_MY_CMS_SECRET='a secret from outside' exec \"$@\"";
    let shell = ["sh", "-c", script, "sh"].map(str::to_owned).to_vec();
    let site = Site::new()
        .pages(&["index"])
        .module("api/webhooks/[name]", crate::modules::hook())
        .config("[webhooks.my-cms]\nsecret = \"a secret in the file\"\npaths = [\"/\"]")
        .under(shell)
        .start()
        .await;
    let send = async |secret| {
        deliver(&site, "my-cms", &[("x-webhook-secret", secret)], "{}")
            .await
            .status
    };
    assert_eq!(
        (
            send("a secret in the file").await,
            send("a secret from outside").await
        ),
        (401, 200)
    );
    let own = site.get("/api/webhooks/own").await;
    assert!(
        own.text().contains("target: /api/webhooks/own"),
        "{}",
        own.text()
    );

    site.configure("[webhooks.my-cms]\nwhen = { \"/a/b\" = 1, \"x y\" = 2 }");
    let incident = site.until_incident("config", "neither a header").await;
    let message = incident["message"].as_str().unwrap();
    assert!(message.contains("[webhooks.my-cms]"), "{message}");
    assert!(!message.contains("a secret in the file"), "{message}");
    assert_eq!(send("a secret from outside").await, 200);

    site.configure("[webhooks.my-cms]\nwhen = { \"x y\" = 2 }\n[webhooks.own]\nsecret = \"a s3cret of its own\"\ntags = [\"a\"]");
    let mut config: toml::Table = std::fs::read_to_string(site.folder().join("wisr.toml"))
        .unwrap()
        .parse()
        .unwrap();
    config["webhooks"].as_table_mut().unwrap().remove("my-cms");
    std::fs::write(site.folder().join("wisr.toml"), config.to_string()).unwrap();
    site.until("/api/webhooks/own", |answer| answer.status == 405)
        .await;
    // Its address is the module's from now on.
    let gone = site.get("/api/webhooks/my-cms").await;
    assert!(
        gone.text().contains("target: /api/webhooks/my-cms"),
        "{}",
        gone.text()
    );
}
