//! Deliveries from whoever finds the address, and payloads from whoever writes the content.

use http::HeaderMap;
use http::header::HeaderValue;
use proptest::prelude::*;
use serde_json::json;

use std::time::Duration;

use super::seal::{Scheme, Seal, Unproven};
use super::template::{Kind, Template, Unmapped};
use crate::fuzz;
use crate::http::revalidate::Target;
use crate::page::Timestamp;

const WORDS: &[&str] = &[
    "/", "..", ".", "%2e", "%2F", "?", "#", "\\", "{", "}", "\0", "\r\n",
];

#[test]
fn a_value_is_one_segment_whatever_it_holds() {
    let template = Template::parse(Kind::Path, "/posts/{/slug}/edit").unwrap();
    let values = fuzz::text(&["a-slug", "../admin", "a/b?c=d#e", "caf\u{e9}", ""], WORDS);
    fuzz::run("webhook-segment", &values, |value| {
        let made = template.expand(&json!({ "slug": value }));
        if matches!(&*value, "" | "." | "..") {
            prop_assert!(matches!(made, Err(Unmapped::Escapes(_))), "{made:?}");
            return Ok(());
        }
        let made = made.unwrap().concat();
        match Target::parse(made) {
            Ok(target) => {
                let segments: Vec<_> = target.path.segments().collect();
                prop_assert_eq!(segments, ["posts", &*value, "edit"]);
                prop_assert_eq!(target.query, None);
            }
            // Which no page can have.
            Err(mistake) => prop_assert!(value.contains('\0'), "{value:?}: {mistake}"),
        }
        Ok(())
    });
}

#[test]
fn several_segments_stay_below_their_place() {
    let template = Template::parse(Kind::Path, "/docs/{+/path}").unwrap();
    let values = fuzz::text(&["a/b", "/a", "a//b", "../x", "a/.", "%2e%2e/x"], WORDS);
    fuzz::run("webhook-segments", &values, |value| {
        let Ok(made) = template.expand(&json!({ "path": value })) else {
            let is_odd = |part| matches!(part, "" | "." | "..");
            prop_assert!(value.split('/').any(is_odd), "{value:?}");
            return Ok(());
        };
        if let Ok(target) = Target::parse(made.concat()) {
            let segments: Vec<_> = target.path.segments().collect();
            let parts: Vec<_> = std::iter::once("docs").chain(value.split('/')).collect();
            prop_assert_eq!(segments, parts);
        }
        Ok(())
    });
}

#[test]
fn nobody_signs_without_the_secret() {
    const HEX: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let seals = [
        Scheme::Header,
        Scheme::Github,
        Scheme::Stripe,
        Scheme::StandardWebhooks,
    ];
    let minutes = Duration::from_secs(300);
    let seals = seals.map(|scheme| Seal::new(scheme, None, "whsec_c2VjcmV0", minutes).unwrap());
    let lines = [
        format!("sha256={HEX}"),
        format!("t=1700000000,v1={HEX},v1={HEX}"),
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v1,x".to_owned(),
    ];
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let words = [
        "v1",
        "t=",
        ",",
        "=",
        " ",
        "sha256=",
        "99999999999999999999",
        HEX,
    ];
    let lines = fuzz::text(&lines, &words);
    fuzz::run("webhook-signature", &lines, |line| {
        let Ok(value) = HeaderValue::from_bytes(line.as_bytes()) else {
            return Ok(());
        };
        let names = [
            "x-webhook-secret",
            "x-hub-signature-256",
            "stripe-signature",
            "webhook-signature",
            "webhook-id",
            "webhook-timestamp",
        ];
        let headers = names.map(|name| (name.parse().unwrap(), value.clone()));
        let headers = HeaderMap::from_iter(headers);
        for seal in &seals {
            let told = seal.check(&headers, b"{}", Timestamp::from_millis(1_700_000_000_000));
            prop_assert_eq!(told, Err(Unproven::Wrong));
        }
        Ok(())
    });
}
