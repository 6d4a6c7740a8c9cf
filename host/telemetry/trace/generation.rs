//! `Made`: the spans of one generation, told when it has ended.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanBuilder, SpanKind, Status, TraceContextExt, Tracer as _};
use opentelemetry::{Context, KeyValue};
use tokio::time::Instant;

use super::{Caller, TRACER, Tracer, method};
use crate::page::{Cost, Failure, Fetch};

/// A generation that has ended.
#[derive(Debug)]
pub struct Made<'a> {
    /// Who asked for it.
    pub caller: &'a Caller,
    /// The route, `/posts/[id]`.
    pub route: &'a str,
    /// The page's path.
    pub path: &'a str,
    /// The module's short digest.
    pub module: String,
    /// A `Cause`.
    pub cause: &'static str,
    /// `page`, `unchanged`, `not-found`, `redirect` or a `FailureKind`.
    pub outcome: &'static str,
    /// When it began to wait for its turn, when it began, and when it ended.
    pub moments: [Instant; 3],
    /// What it cost.
    pub cost: &'a Cost,
    /// Why it failed, if it did.
    pub failure: Option<&'a Failure>,
}

/// Spans that follow each other below one.
struct Telling<'a> {
    tracer: &'a Tracer,
    parent: Context,
}

impl Made<'_> {
    /// Tells the spans, if whoever asked is traced.
    pub fn tell(&self) {
        let (Some(tracer), Some(caller)) = (TRACER.get(), &self.caller.0) else {
            return;
        };
        let [queued, begun, ended] = self.moments.map(|moment| tracer.time(moment));
        let span = SpanBuilder::from_name(format!("generate {}", self.route))
            .with_kind(SpanKind::Internal)
            .with_start_time(queued)
            .with_attributes(self.attributes());
        let span = tracer.tracer.build_with_context(span, caller);
        let telling = Telling {
            tracer,
            parent: caller.with_span(span),
        };
        if telling.parent.span().is_recording() {
            telling.tell("queue", (queued, begun));
            self.tell_calls(&telling, ended);
        }
        let span = telling.parent.span();
        if let Some(failure) = self.failure {
            span.set_attribute(KeyValue::new("error.type", failure.kind.as_str()));
            span.set_status(Status::error(failure.message.clone()));
        }
        span.end_with_timestamp(ended);
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let micros = i64::try_from(self.cost.cpu.as_micros()).unwrap_or(i64::MAX);
        let memory = i64::try_from(self.cost.memory).unwrap_or(i64::MAX);
        vec![
            KeyValue::new("wisr.route", self.route.to_owned()),
            KeyValue::new("wisr.path", self.path.to_owned()),
            KeyValue::new("wisr.module", self.module.clone()),
            KeyValue::new("wisr.cause", self.cause),
            KeyValue::new("wisr.outcome", self.outcome),
            KeyValue::new("wisr.cpu_us", micros),
            KeyValue::new("wisr.memory_bytes", memory),
        ]
    }

    /// The calls of the guest, one after the other up to the end; and in each its fetches.
    fn tell_calls(&self, telling: &Telling<'_>, ended: SystemTime) {
        let cost = self.cost;
        let encoding = ended - cost.encode;
        let began = encoding - cost.wall;
        let instantiated = began + cost.instantiate;
        let rendering = encoding - cost.render;
        // A call that was cut off has no time of its own: it had the rest.
        let cut = |call| self.failure.is_some_and(|failure| failure.call == call);
        let props_end = match cut("static-props") {
            true => encoding,
            false => instantiated + cost.static_props,
        };
        telling.tell("instantiate", (began, instantiated));
        let fetches = cost
            .fetches
            .iter()
            .map(|fetch| (began + fetch.began, fetch));
        let (first, second): (Vec<_>, Vec<_>) = fetches.partition(|(at, _)| *at < props_end);
        if props_end > instantiated {
            telling.call("static-props", (instantiated, props_end), &first);
        }
        if !cost.render.is_zero() || cut("render") {
            let start = if cost.render.is_zero() {
                props_end
            } else {
                rendering
            };
            telling.call("render", (start, encoding), &second);
        }
        if !cost.encode.is_zero() {
            telling.tell("encode", (encoding, ended));
        }
    }
}

impl Telling<'_> {
    fn tell(&self, name: &'static str, span: (SystemTime, SystemTime)) {
        self.call(name, span, &[]);
    }

    fn call(
        &self,
        name: &'static str,
        (start, end): (SystemTime, SystemTime),
        fetches: &[(SystemTime, &Fetch)],
    ) {
        let span = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Internal)
            .with_start_time(start);
        let span = self.tracer.tracer.build_with_context(span, &self.parent);
        let context = self.parent.with_span(span);
        for (at, fetch) in fetches {
            self.fetch(&context, *at, fetch);
        }
        context.span().end_with_timestamp(end);
    }

    fn fetch(&self, call: &Context, at: SystemTime, fetch: &Fetch) {
        // Semantic conventions for HTTP client spans; a query may hold a key.
        let bare = fetch.url.split(['?', '#']).next().unwrap_or_default();
        let (name, mut attributes) = method(&fetch.method);
        attributes.push(KeyValue::new("url.full", bare.to_owned()));
        if let Ok(url) = bare.parse::<http::Uri>() {
            let host = url.host().unwrap_or_default().to_owned();
            attributes.push(KeyValue::new("server.address", host));
            let standard = if url.scheme_str() == Some("https") {
                443
            } else {
                80
            };
            let port = i64::from(url.port_u16().unwrap_or(standard));
            attributes.push(KeyValue::new("server.port", port));
        }
        let failed = match &fetch.result {
            Ok(status) => {
                let status = i64::from(*status);
                attributes.push(KeyValue::new("http.response.status_code", status));
                (status >= 400).then(|| (status.to_string(), String::new()))
            }
            Err(reason) => Some(("_OTHER".to_owned(), reason.clone())),
        };
        let mut status = Status::Unset;
        if let Some((kind, reason)) = failed {
            attributes.push(KeyValue::new("error.type", kind));
            status = Status::error(reason);
        }
        let span = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Client)
            .with_start_time(at)
            .with_attributes(attributes);
        let span = self.tracer.tracer.build_with_context(span, call);
        let context = call.with_span(span);
        context.span().set_status(status);
        context
            .span()
            .end_with_timestamp(at + fetch.duration.max(Duration::from_micros(1)));
    }
}
