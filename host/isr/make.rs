//! `make`: one generation, from asking the renderer to an entry ready to be stored.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, header};

use super::Ask;
use crate::page::{
    CLOCK_TOLERANCE, Cause, Content, Context, Cost, Digest, Document, Entry, Failure, FailureKind,
    Lifetime, NOT_FOUND_REVALIDATE, Outcome, Payload, Props, Revalidate, Stamp, Tag, Timestamp,
};
use crate::telemetry::Clock;

/// Bytes below which a page and its props are compressed where the generation runs: moving them
/// to another thread would take longer. Larger ones take up to milliseconds, which other
/// generations on the thread must not wait for.
const SMALL: usize = 2 << 10;

/// Makes the page that was asked for. `previous` is what readers get now; `sequence` the
/// invalidation number read before.
pub(super) async fn make(
    ask: &Ask,
    cause: Cause,
    sequence: u64,
    previous: Option<&Entry>,
    clock: &Clock,
) -> Result<Entry, Failure> {
    let work = generate(ask, cause, sequence, previous, clock);
    // A bug of wisr costs this generation, not the process, and says so.
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            let message = format!("wisr panicked (please report it): {text}");
            Err(Failure::new(FailureKind::Host, "generation", message))
        })
}

/// What a page is made from, to make it.
pub(super) fn context(ask: &Ask, cause: Cause) -> Context {
    Context {
        route: ask.page.route.clone(),
        path: ask.path.clone(),
        params: ask.params.clone(),
        query: ask.query.clone(),
        cause,
    }
}

async fn generate(
    ask: &Ask,
    cause: Cause,
    sequence: u64,
    previous: Option<&Entry>,
    clock: &Clock,
) -> Result<Entry, Failure> {
    let renderer = &ask.page.renderer;
    let module = renderer.module();
    let before = previous
        .filter(|entry| ask.page.policy.render_on_change && entry.stamp.module == module)
        .filter(|entry| entry.route == ask.page.route)
        .and_then(|entry| match &entry.content {
            Content::Document { props, .. } => Some((*props, &entry.content)),
            _ => None,
        });
    let known = before.map(|(props, _)| props);
    let generation = renderer.generate(&context(ask, cause), known).await?;
    let mut cost = generation.cost;
    let is_unchanged = matches!(generation.outcome, Outcome::Unchanged(_));
    let (content, lifetime) = match (generation.outcome, before) {
        (Outcome::Page(props, document), _) => {
            let lifetime = props.lifetime;
            (encode(props, document, &mut cost).await?, lifetime)
        }
        (Outcome::Unchanged(props), Some((_, content))) => (content.clone(), props.lifetime),
        (Outcome::Unchanged(_), None) => {
            let message = "the renderer skipped a page that was never rendered";
            return Err(Failure::new(FailureKind::Host, "generation", message));
        }
        (Outcome::NotFound(lifetime), _) => (Content::NotFound, lifetime),
        (
            Outcome::Redirect {
                location,
                status,
                lifetime,
            },
            _,
        ) => (Content::Redirect { location, status }, lifetime),
    };
    let tags = match (&content, previous) {
        // Whoever says by a tag that a page went says by the same tag that it is back.
        (Content::NotFound | Content::Redirect { .. }, Some(before)) => {
            Tag::beside(generation.tags, &before.stamp.tags)
        }
        // What was not rendered again cannot have said once more what it was made from.
        (Content::Document { .. }, Some(before)) if is_unchanged => {
            Tag::beside(generation.tags, &before.stamp.tags)
        }
        _ => generation.tags,
    };
    let revalidate = resolve(&content, lifetime, ask.page.policy.revalidate);
    let now = clock.now();
    let stamp = Stamp {
        generated: dated(now, previous),
        ..stamp(now, revalidate, module, sequence, tags)
    };
    Ok(Entry {
        key: ask.key.clone(),
        route: ask.page.route.clone(),
        stamp,
        content,
        cause: Some(cause),
        cost,
    })
}

fn resolve(content: &Content, lifetime: Lifetime, inherited: Revalidate) -> Revalidate {
    match content {
        Content::NotFound => Revalidate::resolve(lifetime, NOT_FOUND_REVALIDATE),
        Content::Document { .. } | Content::Redirect { .. } => {
            Revalidate::resolve(lifetime, inherited)
        }
    }
}

/// When a page was made, as readers are told in whole seconds: no two pages of one address have the same, else a
/// date would say of the newer one that a reader has it (RFC 9110 section 8.8.2.2). A page of the future, from
/// before the clock was set back, is no measure.
fn dated(now: Timestamp, previous: Option<&Entry>) -> Timestamp {
    let second = |at: Timestamp| at.as_millis() / 1_000;
    match previous.map(|entry| entry.stamp.generated) {
        Some(before) if second(before) >= second(now) && before <= now.plus(CLOCK_TOLERANCE) => {
            Timestamp::from_millis((second(before) + 1) * 1_000)
        }
        _ => now,
    }
}

fn stamp(
    now: Timestamp,
    revalidate: Revalidate,
    module: Digest,
    sequence: u64,
    tags: Vec<Tag>,
) -> Stamp {
    Stamp {
        generated: now,
        revalidate,
        fresh_until: revalidate.fresh_until(now, fastrand::f64()),
        module,
        sequence,
        tags: tags.into(),
    }
}

async fn encode(props: Props, document: Document, cost: &mut Cost) -> Result<Content, Failure> {
    let Document {
        status,
        headers,
        body,
    } = document;
    let content_type = headers.get(header::CONTENT_TYPE).cloned();
    let json = props.json;
    let digest = Digest::of(&json);
    let started = Instant::now();
    let size = body.len() + json.len();
    let encode = move || {
        let body = Payload::encode(body, content_type.as_ref());
        (body, encode_json(json))
    };
    let (body, data) = if size < SMALL {
        encode()
    } else {
        let encoded = tokio::task::spawn_blocking(encode).await;
        encoded.map_err(|error| {
            let message = format!("compressing failed: {error}");
            Failure::new(FailureKind::Host, "encode", message)
        })?
    };
    cost.encode = started.elapsed();
    Ok(Content::Document {
        status,
        headers,
        body,
        data,
        props: digest,
    })
}

fn encode_json(json: Bytes) -> Payload {
    Payload::encode(json, Some(&HeaderValue::from_static("application/json")))
}
