//! Section 4: what a page returns that is no page is an error and never published, and text that is no Unicode
//! leaves a page as it would a browser; in every language.

use std::fs;

use serde_json::{Value, json};

use crate::languages::{CLANG, NODE, PYTHON, WAITS, build, module, tree};
use crate::site::{Running, Site};

/// What the page of a fixture says instead of a page, by its name there, and what its author is told.
type Odd = &'static [(&'static str, &'static str)];

const JAVASCRIPT: Odd = &[
    ("undefined", "returned undefined: return a string"),
    ("null", "returned null: return a string"),
    ("number", "returned a number (7)"),
    ("true", "returned true"),
    ("object", "returned an object with the keys title, body"),
    ("instance", "returned an object of the kind Post"),
    ("array", "returned an array"),
    ("jsx", "returned a JSX element"),
    ("promised", "returned an object with the keys title"),
    ("nested", "returned an array"),
    ("function", "returned a function"),
    ("map", "returned an object of the kind Map"),
    ("symbol", "returned a symbol"),
    ("text", "returned the text [object Object]"),
    (
        "shown",
        "an object with the keys title is shown in the page",
    ),
    ("awaited", "a promise (is an `await` missing?) is shown"),
    ("bytes", "returned bytes: return new Response(bytes"),
    ("response", "a body is a string or bytes, not an object"),
    ("nothing", "getStaticProps returns `props`"),
    ("no props", "getStaticProps returns `props`"),
    ("a function in props", "`props.posts[0].open` is a function"),
    (
        "a Map in props",
        "`props.tags` is an object of the kind Map",
    ),
    (
        "a Set in props",
        "`props.tags` is an object of the kind Set",
    ),
    ("a promise in props", "`props.post` is a promise"),
    ("promised props", "`props` is a promise"),
    (
        "an error in props",
        "`props.failed` is an object of the kind Error",
    ),
    ("a symbol in props", "`props.kind` is a symbol"),
    ("a bigint in props", "`props.id` is a bigint"),
    (
        "html in props",
        "`props.body` is an object of the kind Html",
    ),
    (
        "bytes in props",
        "`props.image` is an object of the kind Uint8Array",
    ),
    ("a cycle in props", "`props.cycle.self` holds itself"),
    ("an object as tag", "`tags[1]` is an empty object"),
    (
        "a text as tags",
        "`tags` is an array of names, not \"posts\"",
    ),
    ("no destination", "`redirect.destination` is undefined"),
];

const PY: Odd = &[
    ("None", "render returned None: return a string"),
    ("number", "render returned 7"),
    ("dict", "render returned a dict"),
    ("list", "render returned a list"),
    ("object", "render returned a Post"),
    ("coroutine", "render returned a coroutine"),
    ("text", "render returned the text <"),
    ("shown", "a Post is shown in the page"),
    ("no body", "a Document whose body is None"),
    ("a dict as body", "a Document whose body is a dict"),
    ("a text as status", "a Document whose status is '200'"),
    ("no value of a header", "the header 'x-made' is None"),
    ("nothing", "static_props returned None"),
    ("a dict", "static_props returned a dict"),
    ("a set in props", "`props['posts'][0]['tags']` is a set"),
    ("an object in props", "`props['post']` is a Post"),
    ("a coroutine in props", "`props['post']` is a coroutine"),
    ("no number in props", "`props['price']` is nan"),
    ("a tuple as key", "`props['at']` has a key that is a tuple"),
    ("a cycle in props", "`props['self']` holds itself"),
    ("an object as tag", "tags[1] is a dict"),
    ("a text as tags", "tags is a str"),
    ("no location", "the location of a Redirect is None"),
];

const C: Odd = &[
    ("no text", "the text of the page is NULL"),
    ("zero", "render of page.c returned nothing"),
    ("no bytes", "wisr_bytes: 3 bytes at NULL"),
    ("no header", "wisr_header: the value is NULL"),
    ("nothing", "static_props of page.c returned nothing"),
    ("no props", "wisr_props: the JSON is NULL"),
    ("no tag", "wisr_tag: the tag is NULL"),
    ("no location", "wisr_redirect: the location is NULL"),
];

/// Holds a page in one language to both rules.
async fn stays_good(module: &[u8], kind: &str, file: &str, odd: Odd) {
    let site = Site::new()
        .module("x/[...slug]", module)
        .script("/value", json!({ "value": "good" }))
        .start()
        .await;
    never_published(&site, kind, file, odd).await;
    becomes_unicode(&site, kind).await;
}

/// The last good page stays, and the incident names the author's file and what is wrong.
async fn never_published(site: &Running, kind: &str, file: &str, odd: Odd) {
    assert_eq!(site.get_with("/x/odd", &WAITS).await.text(), "good");
    for (what, told) in odd {
        site.origin.script("/value", json!({ "value": what }));
        let call = site.revalidate(json!({ "paths": ["/x/odd"] })).await;
        assert_eq!(call.status, 500, "{what}: {}", call.text());
        let incident = site.incidents().await.swap_remove(0);
        let message = incident["message"].as_str().unwrap();
        assert!(message.contains(told), "{what}: {told:?} in {message}");
        assert!(incident.to_string().contains(file), "{what}: {incident}");
        assert_eq!(incident["kind"], kind, "{what}: {incident}");
        let page = site.get_with("/x/odd", &WAITS).await;
        assert_eq!((page.status, &*page.text()), (200, "good"), "{what}");
    }
}

/// At each border that text crosses, what is no Unicode is U+FFFD.
async fn becomes_unicode(site: &Running, kind: &str) {
    let shell = site.get("/x/unseen").await;
    assert_eq!(shell.header("x-wisr-cache"), "SHELL", "{shell:?}");
    assert_eq!(shell.text(), "shell \u{fffd}");
    let listed = site.get("/x/listed/%EF%BF%BD").await;
    assert_eq!(listed.header("x-wisr-cache"), "HIT", "{listed:?}");
    for path in ["/x/text", "/x/string"] {
        let page = site.get_with(path, &WAITS).await;
        assert_eq!(page.status, 200, "{path}: {}", page.text());
        assert_eq!(page.text(), "<p>\u{fffd}a\u{fffd}b", "{path}");
        let header = page.headers.get("x-odd").map(|value| value.as_bytes());
        assert_eq!(
            header,
            (path == "/x/text").then_some("a\u{fffd}".as_bytes())
        );
    }
    let mut props = site.get("/_wisr/data/x/text.json").await.json();
    // Only C counts what it posted.
    assert_ne!(
        props.as_object_mut().unwrap().remove("posted"),
        Some(json!(0))
    );
    let expected = json!({
        "title": "a\u{fffd}b", "pair": "😀", "low": "\u{fffd}", "key \u{fffd}": ["\u{fffd}"], "unset": null,
        "refused": "string", "decoded": "a\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}b",
    });
    assert_eq!(props, expected);
    assert_eq!(site.origin.count("/fetched"), 0);
    assert!(site.origin.count("/%EF%BF%BD") >= 2);
    let entries: Value = site.admin("/api/entries?prefix=/x/text").await.json();
    assert_eq!(entries["entries"][0]["tags"], json!(["tag \u{fffd}"]));
    for (path, words) in [
        ("/x/throw", "boom \u{fffd}"),
        ("/x/throw-text", "bang \u{fffd}"),
    ] {
        assert_eq!(site.get_with(path, &WAITS).await.status, 500, "{path}");
        site.until_incident(kind, words).await;
    }
    site.until_log("logged \u{fffd}!").await;
    let streams = if kind == "trap" || site.log().contains("printed") {
        ["printed \u{fffd}!", "on stderr \u{fffd}!"]
    } else {
        ["on the console \u{fffd}!"; 2]
    };
    for words in streams {
        site.until_log(words).await;
    }
    let moved = site.get_with("/x/redirect", &WAITS).await;
    assert_eq!(
        (moved.status, moved.header("location")),
        (307, "/to?%EF%BF%BD")
    );
}

/// In JavaScript, and in TypeScript, which is the same text in another file.
#[tokio::test]
async fn what_is_no_page_is_never_published_in_javascript() {
    let Some(tree) = tree("odd-js", "odd-js", NODE) else {
        return;
    };
    let (js, ts) = ("x/[...slug]/page.js", "x/[...slug]/page.ts");
    stays_good(&module(&tree).await, "error", js, JAVASCRIPT).await;
    let typed = fs::read(tree.join(js)).unwrap();
    fs::write(tree.join(ts), typed).unwrap();
    stays_good(&module(&tree).await, "error", ts, JAVASCRIPT).await;
}

/// In Python.
#[tokio::test]
async fn what_is_no_page_is_never_published_in_python() {
    let Some(tree) = tree("odd-python", "odd-python", PYTHON) else {
        return;
    };
    stays_good(&module(&tree).await, "error", "x/[...slug]/page.py", PY).await;
}

/// In C, whose NULL would read as an empty text.
#[tokio::test]
async fn what_is_no_page_is_never_published_in_c() {
    let Some(tree) = tree("odd-c", "odd-c", CLANG) else {
        return;
    };
    stays_good(&module(&tree).await, "trap", "page.c", C).await;
}

/// A function of C that may end without its value is no program, whatever the compiler thinks of it.
#[tokio::test]
async fn a_page_in_c_that_forgets_to_return_is_not_built() {
    let Some(tree) = tree("odd-c", "odd-c-mute", CLANG) else {
        return;
    };
    let page = tree.join("x/[...slug]/page.c");
    let text = fs::read_to_string(&page).unwrap();
    fs::write(&page, text.replace("    return wisr_html(\"good\");\n", "")).unwrap();
    let site = tempfile::tempdir().unwrap();
    let built = build(&tree, site.path()).await;
    assert_eq!(built.code, Some(1), "{built:?}");
    assert!(built.stderr.contains("return-type"), "{}", built.stderr);
}
