//! `Seal`: how a sender proves that a delivery is its own. Pure.
//!
//! | scheme | what is sent | what is signed |
//! |---|---|---|
//! | `header` | the secret itself | – |
//! | `github` | `x-hub-signature-256: sha256=<hex>` | the body |
//! | `stripe` | `stripe-signature: t=<seconds>,v1=<hex>` | `<t>.<body>` |
//! | `standard-webhooks` | `webhook-id`, `webhook-timestamp`, `webhook-signature: v1,<base64>` | `<id>.<timestamp>.<body>` |
//!
//! Signatures are HMAC-SHA256, in hex or any base64, and `header` names another header: that covers
//! Shopify (`github` with its header) and Sanity (`stripe` with its header, in milliseconds).

use std::time::Duration;

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use ring::hmac;
use subtle::ConstantTimeEq;

use super::super::Secret;
use crate::page::Timestamp;

/// Signatures in one header that are looked at: old and new keys while one is rotated.
const MAX_SIGNATURES: usize = 8;

/// Seconds are larger than this from the year 5138 on, milliseconds since 1973.
const MILLIS_FROM: u64 = 100_000_000_000;

/// Bytes of an HMAC-SHA256.
const DIGEST: usize = 32;

/// Which proof is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// A header has the secret.
    Header,
    /// A header has a signature of the body.
    Github,
    /// A header has a signature of a time and the body.
    Stripe,
    /// The headers of the Standard Webhooks specification 1.0.0.
    StandardWebhooks,
}

/// The proof that a webhook asks for.
#[derive(Debug, Clone)]
pub struct Seal {
    scheme: Scheme,
    header: HeaderName,
    secret: Secret,
    key: hmac::Key,
    tolerance: Duration,
}

/// A delivery that is its sender's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proven {
    /// What tells this delivery from every other, and until when it would be taken again.
    pub(super) once: Option<([u8; DIGEST], Timestamp)>,
}

/// Why a delivery is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unproven {
    /// The proof is missing or wrong.
    Wrong,
    /// It is right, and not of now.
    Untimely,
}

impl Scheme {
    /// The header that has the proof, unless another is named.
    pub fn header(self) -> HeaderName {
        HeaderName::from_static(match self {
            Scheme::Header => "x-webhook-secret",
            Scheme::Github => "x-hub-signature-256",
            Scheme::Stripe => "stripe-signature",
            Scheme::StandardWebhooks => "webhook-signature",
        })
    }
}

impl Seal {
    /// A seal by `secret`. `header` has the proof, if not the scheme's own one does; deliveries
    /// that state a time may be `tolerance` old, or early.
    ///
    /// # Errors
    /// When the secret is none of the scheme.
    pub fn new(
        scheme: Scheme,
        header: Option<&str>,
        secret: &str,
        tolerance: Duration,
    ) -> Result<Self, String> {
        let header = match header {
            None => scheme.header(),
            Some(_) if scheme == Scheme::StandardWebhooks => {
                return Err(
                    "scheme = \"standard-webhooks\" has headers of its own: remove `header`"
                        .to_owned(),
                );
            }
            Some(name) => name
                .parse()
                .map_err(|_| format!("header = {name:?} is no name of a header"))?,
        };
        // The specification: base64 after `whsec_`.
        let key = match scheme {
            Scheme::StandardWebhooks => {
                let base64 = secret.strip_prefix("whsec_").unwrap_or(secret);
                BASE64.decode(base64.as_bytes()).map_err(|_| {
                    "a secret of `standard-webhooks` is `whsec_` and base64".to_owned()
                })?
            }
            _ => secret.as_bytes().to_vec(),
        };
        Ok(Self {
            scheme,
            header,
            secret: Secret::new(secret),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            tolerance,
        })
    }

    /// Whether the body can matter: without this, it need not be read.
    pub(super) fn is_there(&self, headers: &HeaderMap) -> bool {
        match (self.scheme, self.proof(headers)) {
            (_, None) => false,
            (Scheme::Header, Some(given)) => self.secret.is(given.as_bytes()),
            _ => true,
        }
    }

    /// Checks a delivery.
    ///
    /// # Errors
    /// [`Unproven`].
    pub(super) fn check(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Proven, Unproven> {
        let proof = self.proof(headers).ok_or(Unproven::Wrong)?;
        if self.scheme == Scheme::Header {
            let is_right = self.secret.is(proof.as_bytes());
            return is_right
                .then_some(Proven { once: None })
                .ok_or(Unproven::Wrong);
        }
        let text = proof.to_str().map_err(|_| Unproven::Wrong)?;
        let claim = match self.scheme {
            Scheme::Header | Scheme::Github => Claim::of_body(text),
            Scheme::Stripe => Claim::of_fields(text),
            Scheme::StandardWebhooks => Claim::of_headers(text, headers),
        };
        let claim = claim.ok_or(Unproven::Wrong)?;
        let digest = claim.signed_by(&self.key, body).ok_or(Unproven::Wrong)?;
        let once = match claim.at {
            None => None,
            Some(at) => {
                if now.since(at).max(at.since(now)) > self.tolerance {
                    return Err(Unproven::Untimely);
                }
                Some((digest, at.plus(self.tolerance)))
            }
        };
        Ok(Proven { once })
    }

    /// The one line of the header; said twice, it is not said.
    fn proof<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let mut lines = headers.get_all(&self.header).iter();
        match (lines.next(), lines.next()) {
            (Some(line), None) => Some(line),
            _ => None,
        }
    }
}

/// What a delivery says of itself.
struct Claim {
    /// What comes before the body in what is signed.
    prefix: String,
    at: Option<Timestamp>,
    signatures: Vec<[u8; DIGEST]>,
}

impl Claim {
    fn of_body(text: &str) -> Option<Self> {
        let text = text.strip_prefix("sha256=").unwrap_or(text);
        Some(Self {
            prefix: String::new(),
            at: None,
            signatures: vec![digest(text)?],
        })
    }

    fn of_fields(text: &str) -> Option<Self> {
        let fields = || {
            text.split(',')
                .filter_map(|field| field.trim().split_once('='))
        };
        let (_, time) = fields().find(|(name, _)| *name == "t")?;
        let signatures = fields().filter(|(name, _)| *name == "v1");
        Some(Self {
            prefix: format!("{time}."),
            at: Some(moment(time)?),
            signatures: several(signatures.map(|(_, value)| value)),
        })
    }

    fn of_headers(text: &str, headers: &HeaderMap) -> Option<Self> {
        let line = |name| headers.get(name)?.to_str().ok();
        let (id, time) = (line("webhook-id")?, line("webhook-timestamp")?);
        let signatures = text
            .split(' ')
            .filter_map(|signature| signature.strip_prefix("v1,"));
        Some(Self {
            prefix: format!("{id}.{time}."),
            at: Some(moment(time)?),
            signatures: several(signatures),
        })
    }

    /// The signature that is right, if one is.
    fn signed_by(&self, key: &hmac::Key, body: &[u8]) -> Option<[u8; DIGEST]> {
        let mut context = hmac::Context::with_key(key);
        context.update(self.prefix.as_bytes());
        context.update(body);
        let own = context.sign();
        let is_own = |given: &&[u8; DIGEST]| bool::from(own.as_ref().ct_eq(*given));
        self.signatures.iter().find(is_own).copied()
    }
}

fn several<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<[u8; DIGEST]> {
    texts.take(MAX_SIGNATURES).filter_map(digest).collect()
}

fn moment(text: &str) -> Option<Timestamp> {
    let number: u64 = text.parse().ok()?;
    let millis = match number {
        MILLIS_FROM.. => number,
        seconds => seconds * 1000,
    };
    Some(Timestamp::from_millis(millis))
}

fn digest(text: &str) -> Option<[u8; DIGEST]> {
    let text = text.as_bytes();
    let codings = [
        &HEXLOWER_PERMISSIVE,
        &BASE64,
        &BASE64_NOPAD,
        &BASE64URL,
        &BASE64URL_NOPAD,
    ];
    let decoded = codings.iter().filter_map(|coding| coding.decode(text).ok());
    decoded.filter_map(|bytes| bytes.try_into().ok()).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTES: Duration = Duration::from_secs(300);

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn seal(scheme: Scheme, secret: &str) -> Seal {
        Seal::new(scheme, None, secret, MINUTES).unwrap()
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    /// The example of GitHub's documentation on validating webhook deliveries.
    #[test]
    fn github_is_as_its_documentation_says() {
        let seal = seal(Scheme::Github, "It's a Secret to Everybody");
        let right = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let lines = [("x-hub-signature-256", right)];
        assert_eq!(
            seal.check(&headers(&lines), b"Hello, World!", at(0)),
            Ok(Proven { once: None })
        );
        for (lines, body) in [
            (&lines[..], &b"Hello, World"[..]),
            (&[("x-hub-signature", right)], b"Hello, World!"),
            (&[lines[0], lines[0]], b"Hello, World!"),
            (&[("x-hub-signature-256", &right[..70])], b"Hello, World!"),
            (&[("x-hub-signature-256", "sha256=")], b"Hello, World!"),
            (&[("x-hub-signature-256", "")], b"Hello, World!"),
        ] {
            assert_eq!(
                seal.check(&headers(lines), body, at(0)),
                Err(Unproven::Wrong),
                "{lines:?}"
            );
        }
    }

    /// The example of the Standard Webhooks specification's reference libraries.
    #[test]
    fn standard_webhooks_are_as_their_specification_says() {
        let seal = seal(
            Scheme::StandardWebhooks,
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        );
        let (id, time) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330");
        let body = br#"{"test": 2432232314}"#;
        let right = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let both = format!("v1,bm9wZQ== v2,x {right}");
        for signature in [right, &both] {
            let lines = [
                ("webhook-id", id),
                ("webhook-timestamp", time),
                ("webhook-signature", signature),
            ];
            let proven = seal
                .check(&headers(&lines), body, at(1_614_265_330))
                .unwrap();
            assert_eq!(proven.once.unwrap().1, at(1_614_265_630));
            for now in [1_614_265_331 + 300, 1_614_265_329 - 300] {
                let told = seal.check(&headers(&lines), body, at(now));
                assert_eq!(told, Err(Unproven::Untimely));
            }
            let other = [("webhook-id", "msg_other"), lines[1], lines[2]];
            let told = seal.check(&headers(&other), body, at(1_614_265_330));
            assert_eq!(told, Err(Unproven::Wrong));
            assert_eq!(
                seal.check(&headers(&lines[1..]), body, at(0)),
                Err(Unproven::Wrong)
            );
        }
        assert!(Seal::new(Scheme::StandardWebhooks, None, "whsec_?", MINUTES).is_err());
        assert!(Seal::new(Scheme::StandardWebhooks, Some("x"), "", MINUTES).is_err());
    }

    #[test]
    fn a_signed_time_is_part_of_what_is_signed() {
        let seal = seal(Scheme::Stripe, "whsec_test");
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"whsec_test");
        let line = |time: u64, coded: fn(&[u8]) -> String| {
            let signature = hmac::sign(&key, format!("{time}.{{}}").as_bytes());
            format!("t={time},v1={}", coded(signature.as_ref()))
        };
        let check = |line: &str| {
            let headers = headers(&[("stripe-signature", line)]);
            seal.check(&headers, b"{}", at(1_700_000_000))
                .map(|proven| proven.once.unwrap().1)
        };
        let hex = |bytes: &[u8]| HEXLOWER_PERMISSIVE.encode(bytes);
        let right = line(1_700_000_000, hex);
        assert_eq!(check(&right), Ok(at(1_700_000_300)));
        assert_eq!(check(&format!("{right},v1=00,v0=x")), Ok(at(1_700_000_300)));
        let rotated = right.replace("v1=", &format!("v1={},v1=", "0".repeat(64)));
        assert_eq!(check(&rotated), Ok(at(1_700_000_300)));
        // As Sanity does it: milliseconds, base64 for URLs.
        let sanity = line(1_700_000_000_000, |bytes| BASE64URL_NOPAD.encode(bytes));
        assert_eq!(check(&sanity), Ok(at(1_700_000_300)));
        for wrong in [
            right.replace("t=1700000000", "t=1700000001"),
            right.replace("v1", "v0"),
            right.replace("t=", "x="),
            String::new(),
        ] {
            assert_eq!(check(&wrong), Err(Unproven::Wrong), "{wrong}");
        }
        assert_eq!(check(&line(1_699_999_699, hex)), Err(Unproven::Untimely));
    }

    #[test]
    fn a_secret_in_a_header_is_compared_whole() {
        let seal = Seal::new(Scheme::Header, Some("X-Own"), "s3cret", MINUTES).unwrap();
        for (lines, expected) in [
            (&[("x-own", "s3cret")][..], true),
            (&[("x-own", "s3cre")], false),
            (&[("x-own", "s3cret"), ("x-own", "s3cret")], false),
            (&[("x-webhook-secret", "s3cret")], false),
            (&[], false),
        ] {
            let headers = headers(lines);
            assert_eq!(seal.is_there(&headers), expected, "{lines:?}");
            assert_eq!(
                seal.check(&headers, b"", at(0)).is_ok(),
                expected,
                "{lines:?}"
            );
        }
    }
}
