//! Section 9: the dashboard, in a browser and without one.

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::client::{Client, Response};
use crate::modules;
use crate::site::{Running, Site, TOKEN, wait_for};

/// Where forms about a page go.
const ACT: &str = "/page/act";

/// Where operators find everything.
const PAGES: [&str; 5] = ["/", "/routes", "/pages", "/incidents", "/releases"];

/// What a guest may write to steer a terminal, turn a line around, or run in a page.
const NASTY: &str = "\u{1b}]0;owned\u{7}<script>alert(1)</script>\u{202e}gnp.exe";

async fn posts() -> Running {
    let site = Site::new().pages(&["index", "posts/[id]"]).start().await;
    for number in 1..=3 {
        site.get(&format!("/posts/{number}")).await;
    }
    site
}

/// Sends a form as a browser does.
async fn form(site: &Running, path: &str, more: &[(&str, &str)], body: &str) -> Response {
    let own = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("sec-fetch-site", "same-origin"),
    ];
    let mut headers = more.to_vec();
    let missing = own
        .iter()
        .filter(|(name, _)| !more.iter().any(|(given, _)| given == name));
    headers.extend(missing);
    site.admin_post(path, &headers, body).await
}

async fn until_release(site: &Running, id: u64) {
    wait_for(&format!("release {id}"), async || {
        match site.admin("/api/releases").await.json()["current"].clone() {
            current if current == id => Ok(()),
            current => Err(current.to_string()),
        }
    })
    .await;
}

/// What an operator comes for: finds a page, renews it, reads what failed, goes back.
#[tokio::test]
async fn an_operator_finds_a_page_renews_it_reads_an_incident_and_rolls_back() {
    let Some(browser) = Browser::open(1280, 800).await else {
        return;
    };
    let site = posts().await;
    site.origin
        .script("/posts/9", json!({ "outcome": "panic" }));
    site.get("/posts/9").await;
    site.swap("posts/[id]", &modules::puppet_version(2));
    until_release(&site, 2).await;

    browser.visit(&site.admin_url()).await;
    assert_eq!(browser.text("h1").await, "Overview");
    // The script is at work, and the policy lets it.
    browser
        .until("//figure[@data-chart='requests']//strong", ".")
        .await;

    browser.click("//nav//a[.='Pages']").await;
    browser.type_into("#prefix", "/posts/2\u{e007}").await;
    browser.until("tbody", "/posts/2").await;
    assert!(!browser.text("tbody").await.contains("/posts/1"));
    browser.click("tbody a").await;
    browser.until("main", "module-changed").await;
    let before = site.origin.calls("/posts/2").len();
    browser.press("Page", "Revalidate").await;
    browser.press("Are you sure?", "Revalidate").await;
    browser.until("[role=status]", "made anew").await;
    assert!(browser.text("dl").await.contains("on demand"));
    assert_eq!(site.origin.calls("/posts/2").len(), before + 1);
    assert_eq!(site.get("/posts/2").await.verdict(), "HIT");
    browser.press("Page", "Purge").await;
    browser.press("Are you sure?", "Cancel").await;
    browser.press("Page", "Purge").await;
    browser.press("Are you sure?", "Purge").await;
    browser.until("[role=status]", "removed").await;
    assert_eq!(site.get("/posts/2").await.verdict(), "MISS");

    browser.click("//nav//a[.='Incidents']").await;
    browser.click("//tr[contains(., '/posts/9')]//a").await;
    browser.until("h1", "Incident").await;
    let told = browser.text("main").await;
    for words in [
        "/posts/9",
        "first-request",
        "the origin wants a panic",
        "Backtrace",
        "/posts/9?cause=FirstRequest",
        "Limits of the route now",
    ] {
        assert!(told.contains(words), "{words} in {told}");
    }

    browser.click("//nav//a[.='Releases']").await;
    browser
        .click("//tr[contains(., '#1')]//a[.='Roll back']")
        .await;
    browser.press("Are you sure?", "Roll back").await;
    browser
        .until("[role=status]", "release #1 serve again")
        .await;
    let release = site.admin("/api/releases").await.json()["releases"][0].clone();
    assert_eq!(
        (&release["how"], &release["of"]),
        (&json!("rollback"), &json!(1))
    );
    browser.until("main", "A rollback holds").await;
    assert_eq!(browser.complaints().await, Vec::<Value>::new());
}

/// With the keyboard alone: past the navigation, to a page, to its button.
#[tokio::test]
async fn the_keyboard_is_enough() {
    let Some(browser) = Browser::open(1280, 800).await else {
        return;
    };
    let site = posts().await;
    browser
        .visit(&format!("{}/pages?prefix=/posts/3", site.admin_url()))
        .await;
    let focus = "return document.activeElement.textContent || document.activeElement.id";
    browser.keys("\u{e004}").await;
    assert_eq!(browser.run(focus).await, "Skip to the content");
    let outline = "return getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(browser.run(outline).await, "solid");
    // Enter; the search field, its button, the page.
    browser.keys("\u{e007}").await;
    browser.keys("\u{e004}").await;
    assert_eq!(
        browser.run("return document.activeElement.id").await,
        "prefix"
    );
    browser.keys("\u{e004}\u{e004}").await;
    assert_eq!(browser.run(focus).await, "/posts/3");
    browser.keys("\u{e007}").await;
    browser.until("h1", "Page").await;
    assert!(browser.url().await.ends_with("/page?path=/posts/3"));
}

/// Every page fits every screen, in both schemes, and every text can be read (WCAG 2.2, 1.4.3).
#[tokio::test]
async fn pages_fit_a_phone_and_are_read_in_dark_and_light() {
    let Some(browser) = Browser::open(1280, 800).await else {
        return;
    };
    let site = posts().await;
    let long = format!("/posts/{}", "very-long-".repeat(60));
    site.get(&long).await;
    site.origin
        .script("/posts/9", json!({ "outcome": "panic" }));
    site.get("/posts/9").await;
    site.swap("posts/[id]", b"no module");
    site.until_incident("module", "posts").await;
    let details = [
        format!("/page?path={long}"),
        "/incident?id=1".to_owned(),
        "/route?name=/posts/[id]".to_owned(),
        "/page/confirm?path=/posts/1&action=purge".to_owned(),
        "/page?path=/nothing".to_owned(),
    ];
    for path in PAGES.map(str::to_owned).into_iter().chain(details) {
        reads_well(&browser, &format!("{}{path}", site.admin_url())).await;
    }
}

/// Holds a page to a desk and a phone, in both schemes.
pub(crate) async fn reads_well(browser: &Browser, url: &str) {
    for (width, scheme) in [
        (1280, "light"),
        (1280, "dark"),
        (360, "light"),
        (360, "dark"),
    ] {
        browser.look(width, 800, scheme).await;
        browser.visit(url).await;
        let wide = browser
            .run("return document.documentElement.scrollWidth - innerWidth")
            .await;
        assert!(
            wide.as_i64().unwrap() <= 0,
            "{url} at {width}: {wide} too wide"
        );
        let faint = browser.run(FAINT).await;
        assert_eq!(faint, json!([]), "{url}, {scheme}");
    }
}

/// The texts of a page whose contrast with what is behind them is less than 4.5.
const FAINT: &str = "
    const paint = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const channels = (color) => {
        paint.clearRect(0, 0, 1, 1); paint.fillStyle = color; paint.fillRect(0, 0, 1, 1);
        return [...paint.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map((it) => (it /= 255) <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4);
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const behind = (element) => {
        for (let it = element; it; it = it.parentElement) {
            const ground = channels(getComputedStyle(it).backgroundColor);
            if (ground[3] === 255) return ground;
        }
        return [255, 255, 255];
    };
    const faint = [];
    for (const element of document.body.querySelectorAll('*')) {
        const own = [...element.childNodes].some((it) => it.nodeType === 3 && it.data.trim());
        if (!own || element.closest('.skip')) continue;
        const [one, other] = [light(channels(getComputedStyle(element).color)), light(behind(element))];
        const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (contrast < 4.5) faint.push(`${element.className || element.tagName} ${element.textContent}: ${contrast}`);
    }
    return faint;
";

/// Where there is a token, a browser shows it once and is known by a cookie that is not it.
#[tokio::test]
async fn a_browser_logs_in_once() {
    let Some(browser) = Browser::open(1280, 800).await else {
        return;
    };
    let site = Site::new()
        .pages(&["index"])
        .config("[server]\nadmin-token = \"horse-battery-staple\"");
    let site = site.start().await;
    browser
        .visit(&format!("{}/releases", site.admin_url()))
        .await;
    browser.type_into("#token", "cow\u{e007}").await;
    browser.until("[role=alert]", "not the token").await;
    browser
        .visit(&format!("{}/releases", site.admin_url()))
        .await;
    browser
        .type_into("#token", "horse-battery-staple\u{e007}")
        .await;
    browser.until("h1", "Releases").await;
    browser.visit(&site.admin_url()).await;
    browser.until("body[data-live=yes] h1", "Overview").await;
    browser.click("//button[.='Log out']").await;
    browser.until("h1", "Log in").await;
}

/// The same without a browser: what the login page sets, whom it lets in, and what it never says.
#[tokio::test]
async fn a_session_is_a_cookie_that_scripts_and_other_sites_do_not_have() {
    let site = Site::new()
        .pages(&["index"])
        .config("[server]\nadmin-token = \"horse-battery-staple\"");
    let site = site.start().await;
    for path in ["/", "/pages", "/nothing"] {
        let refused = site.admin(path).await;
        assert_eq!(refused.status, 401, "{path}");
        assert!(refused.text().contains("name=\"token\""), "{path}");
    }
    assert_eq!(site.admin("/api/live").await.status, 401);
    let wrong = form(&site, "/login", &[], "token=cow&to=/").await;
    assert_eq!((wrong.status, wrong.header("set-cookie")), (401, ""));
    let foreign = [("sec-fetch-site", "same-site")];
    assert_eq!(
        form(&site, "/login", &foreign, "token=horse-battery-staple")
            .await
            .status,
        403
    );
    let entered = form(
        &site,
        "/login",
        &[],
        "token=horse-battery-staple&to=//evil.example",
    )
    .await;
    assert_eq!((entered.status, entered.header("location")), (303, "/"));
    let cookie = entered.header("set-cookie");
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().unwrap();
    let cookie = [("cookie", pair)];
    let mut client = Client::new(site.admin_door());
    for path in PAGES.into_iter().chain(["/api/routes", "/metrics"]) {
        let shown = client.send("GET", path, &cookie, "").await.unwrap();
        assert_eq!(shown.status, 200, "{path}");
        for secret in ["horse-battery-staple", TOKEN, pair] {
            assert!(!shown.text().contains(secret), "{secret} in {path}");
        }
    }
    let left = form(&site, "/logout", &cookie, "").await;
    assert!(left.header("set-cookie").contains("Max-Age=0"));
    let shown = client.send("GET", "/", &cookie, "").await.unwrap();
    assert_eq!(shown.status, 401);
}

/// A browser sends the cookies of a host to all its ports: a module behind the public one must not
/// be handed the session of an operator, nor the pass of an editor, which opens all drafts.
#[tokio::test]
async fn an_api_route_never_sees_a_session_or_a_pass() {
    let site = Site::new()
        .module("api/hook", modules::hook())
        .start()
        .await;
    let seen = site
        .get_with(
            "/api/hook",
            &[("cookie", "a=1; wisr-session=4711; wisr_draft=1.4711.x; b=2")],
        )
        .await;
    let seen = seen.text();
    assert!(
        seen.contains("a=1; b=2") && !seen.contains("4711"),
        "{seen}"
    );
}

/// Forms do what their buttons say, tell how it went by a status, and are done for no other site.
#[tokio::test]
async fn forms_do_what_they_say_and_for_nobody_else() {
    let site = posts().await;
    for (headers, path, body, status, words) in [
        (&[][..], ACT, "path=/posts/1&action=regenerate", 303, ""),
        (&[], ACT, "path=/posts/1&action=stale", 303, ""),
        (&[], ACT, "path=/nothing&action=regenerate", 404, "/nothing"),
        (&[], ACT, "path=nothing&action=purge", 400, "begins with"),
        (&[], ACT, "path=/posts/1&action=burn", 400, "burn"),
        (&[], ACT, "path=/posts/1&action=purge&more=1", 400, "more"),
        (&[], "/releases/rollback", "id=1", 409, "already"),
        (&[], "/releases/rollback", "id=9", 404, "Release 9"),
        (&[], "/pages", "", 405, "GET"),
        (
            &[("sec-fetch-site", "cross-site")],
            ACT,
            "path=/posts/1&action=purge",
            403,
            "other sites",
        ),
        (
            &[("sec-fetch-site", "same-site")],
            ACT,
            "path=/posts/1&action=purge",
            403,
            "other sites",
        ),
        (
            &[("origin", "http://evil.example")],
            ACT,
            "path=/posts/1&action=purge",
            403,
            "other sites",
        ),
        (
            &[("content-type", "text/plain")],
            ACT,
            "path=/posts/1&action=purge",
            415,
            "urlencoded",
        ),
        (
            &[("host", "evil.example")],
            ACT,
            "path=/posts/1&action=purge",
            421,
            "localhost",
        ),
    ] {
        let done = form(&site, path, headers, body).await;
        assert_eq!(done.status, status, "{body} {headers:?}: {}", done.text());
        assert!(done.text().contains(words), "{words} in {}", done.text());
    }
    let plain = [("content-type", "application/x-www-form-urlencoded")];
    let silent = site
        .admin_post(ACT, &plain, "path=/posts/1&action=purge")
        .await;
    assert_eq!(silent.status, 403, "a browser says where a form is from");
    assert_eq!(site.admin(ACT).await.status, 405);
    assert_eq!(site.get("/posts/1").await.verdict(), "STALE");
}

/// How it went is told by a page with the status of it.
#[tokio::test]
async fn how_a_form_went_is_told_by_a_page() {
    let site = posts().await;
    let purged = form(&site, ACT, &[], "path=/posts/1&action=purge").await;
    assert_eq!(purged.header("location"), "/page?path=/posts/1&done=purge");
    let told = site.admin(purged.header("location")).await;
    assert!(told.status == 200 && told.text().contains("The page was removed."));
    site.origin.fail("/posts/1");
    let failed = form(&site, ACT, &[], "path=/posts/1&action=regenerate").await;
    assert_eq!(failed.status, 500, "{}", failed.text());
    for path in [
        "/page?path=/nothing",
        "/incident?id=4711",
        "/route?name=/nothing",
        "/nothing",
    ] {
        let missing = site.admin(path).await;
        let is_page = missing.header("content-type").starts_with("text/html");
        assert_eq!((missing.status, is_page), (404, true), "{path}");
    }
    assert_eq!(site.admin("/incident?id=x").await.status, 400);
}

/// Whatever a page says, an operator reads it: nothing of it steers a terminal or runs in a browser.
#[tokio::test]
async fn what_guests_say_is_shown_and_does_nothing() {
    let site = posts().await;
    site.origin.script("/posts/7", json!({ "outcome": NASTY }));
    site.origin.script(
        "/posts/8",
        json!({"tags": ["<b>tag</b>"], "fetch": "http://127.0.0.1:1/<i>"}),
    );
    site.origin.script(
        "/posts/9",
        json!({"props": {"<i>title": NASTY}, "render": {"outcome": "error"}}),
    );
    let paths = ["/posts/7", "/posts/8", "/posts/9"];
    for path in paths.into_iter().chain(["/posts/%3Cu%3E%1B%E2%80%AE"]) {
        site.get(path).await;
    }
    let mut shown = String::new();
    for path in [
        "/",
        "/pages",
        "/incidents",
        "/incident?id=1",
        "/incident?id=2",
        "/page?path=/posts/8",
    ] {
        let page = site.admin(path).await;
        assert_eq!(page.status, 200, "{path}");
        shown += &page.text();
    }
    for raw in ["\u{1b}", "\u{202e}", "<u>", "<b>", "<i>"] {
        assert!(!shown.contains(raw), "{raw:?} in {shown}");
    }
    assert_eq!(
        shown.matches("<script").count(),
        6,
        "one of its own on each page"
    );
    assert!(shown.contains("&lt;b&gt;tag"), "{shown}");
    assert!(shown.contains("  &quot;&lt;i&gt;title&quot;: "), "{shown}");
    assert!(!shown.contains("<dt>Shared</dt>"), "it shares with nobody");
}

/// However many pages there are, a list shows some and says where it goes on: nobody is left out
/// and nobody comes twice, whatever is made meanwhile.
#[tokio::test]
async fn thousands_of_pages_are_walked_in_parts() {
    let paths: Vec<Value> = (0..2_000)
        .map(|number| json!({ "id": [format!("{number:04}")] }))
        .collect();
    let listed = json!({"paths": paths, "fallback": "blocking"});
    let site = Site::new()
        .pages(&["posts/[id]"])
        .listed("/posts/[id]", "posts", listed);
    let site = site.start().await;
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let told = site
            .admin(&format!("/api/entries?prefix=/posts/1&limit=99{after}"))
            .await
            .json();
        let entries = told["entries"].as_array().unwrap();
        assert!(entries.len() <= 99);
        seen.extend(
            entries
                .iter()
                .map(|entry| entry["path"].as_str().unwrap().to_owned()),
        );
        site.get(&format!("/posts/0-new-{}", seen.len())).await;
        match told["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    let expected: Vec<String> = (1_000..2_000)
        .map(|number| format!("/posts/{number}"))
        .collect();
    assert_eq!(seen, expected);
    let first = site.admin("/pages?prefix=/posts/1").await.text();
    assert_eq!(first.matches("href=\"/page?path=").count(), 50);
    let next = first
        .split("rel=\"next\" href=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let second = site.admin(&next.replace("&amp;", "&")).await.text();
    assert!(second.contains(">/posts/1050<") && !second.contains(">/posts/1049<"));
}

/// What a page cost, why it was made and how often it was sent.
#[tokio::test]
async fn a_page_tells_its_history() {
    let mut site = posts().await;
    let entry =
        async |site: &Running| site.admin("/api/entry?path=/posts/1").await.json()["entry"].clone();
    for _ in 0..200 {
        assert_eq!(site.get("/posts/1").await.verdict(), "HIT");
    }
    let told = entry(&site).await;
    assert_eq!(
        (&told["cause"], &told["hits"]),
        (&json!("first-request"), &json!(200))
    );
    assert_eq!(told["size"], site.get("/posts/1").await.body.len());
    site.renew("/posts/1").await;
    let told = entry(&site).await;
    assert_eq!(
        (&told["cause"], &told["hits"]),
        (&json!("on-demand"), &json!(201))
    );
    site.restart().await;
    assert_eq!(entry(&site).await["cause"], "on-demand", "also from disk");
}
