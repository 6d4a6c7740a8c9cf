//! `ApiGuest`: an API route's module with its grants, which answers requests itself. It may be any
//! component of the world `wasi:http/proxy`.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{self, HeaderMap};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::sync::oneshot;
use tokio::task::coop::unconstrained;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::engine::Purpose;
use super::grants::Grants;
use super::held::{Account, Charge};
use super::limits::{CALL_BYTES, FIELD_OVERHEAD};
use super::module::{ApiExports, Module};
use super::revalidate::{Caller, Revalidate};
use super::run::Run;
use super::sandbox::Overrun;
use super::trap::{Stop, size};
use crate::page::{Failure, FailureKind, is_no_guests, takes_own_cookie};

/// An API route's module, which answers requests under its route's grants.
pub struct ApiGuest {
    module: Arc<Module>,
    grants: Grants,
}

/// Why a request has no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// No place became free in time.
    Busy,
    /// The module failed.
    Failed(Box<Failure>),
}

/// How long a request waits for a place: as long as a reader waits for a generation to begin.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the guest hands over when it sets its response.
type Told = Result<Response<HyperOutgoingBody>, ErrorCode>;

impl ApiGuest {
    /// A module as a route's handler. The exports are what the module's role says: that it is one.
    pub fn new(module: Arc<Module>, _: ApiExports, grants: Grants) -> Self {
        Self { module, grants }
    }

    /// Answers one request in a fresh sandbox, in which it may call `revalidate` if that is granted.
    /// What it waits for there has places of its own, so that waiting for it cannot be for ever,
    /// and counts to its wall time. The answer is complete: it is handed over once the
    /// module has returned, so that a module that fails on the way answers nothing.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub async fn answer(
        &self,
        route: Arc<str>,
        request: Request<Bytes>,
        revalidate: Revalidate,
    ) -> Result<Response<Bytes>, Unanswered> {
        let limits = &self.grants.limits;
        let bound = limits.page.saturating_add(CALL_BYTES);
        let begin = self
            .grants
            .begin(&self.module, route.clone(), bound, Purpose::Api);
        let Ok(mut run) = tokio::time::timeout(PATIENCE, begin).await else {
            return Err(Unanswered::Busy);
        };
        run.sandbox.store.data_mut().caller = match self.grants.may_revalidate {
            true => Caller::granted(revalidate),
            false => Caller::NotGranted(route),
        };
        let (meter, wall) = (run.meter(), run.wall());
        let ended = meter.run(wall, self.handle(&mut run, request)).await;
        match run.end(ended).await {
            Ok((response, _)) => Ok(response),
            Err(failure) => Err(Unanswered::Failed(failure)),
        }
    }

    async fn handle(
        &self,
        run: &mut Run<'_>,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Stop> {
        let instance = run.instantiate().await?;
        let handler = run
            .code()
            .handler()?
            .load(&mut run.sandbox.store, &instance)?;
        let is_head = request.method() == Method::HEAD;
        let (sender, told) = oneshot::channel();
        let state = run.sandbox.store.data_mut();
        state
            .keep(weight(&request))
            .map_err(wasmtime::Error::from)?;
        let body = Blocks::new(state.account())?;
        let request = request.map(|body| Full::new(body).map_err(unreachable));
        let mut http = state.http();
        let request = http.new_incoming_request(Scheme::Http, request)?;
        let out = http.new_response_outparam(sender)?;
        run.enter("handle");
        let mut answer = pin!(collect(told, body, self.grants.limits.page, is_head));
        let mut early = None;
        {
            let mut handling = pin!(handler.call_handle(&mut run.sandbox.store, request, out));
            loop {
                tokio::select! {
                    biased;
                    handled = &mut handling => break handled?,
                    collected = &mut answer, if early.is_none() => early = Some(collected?),
                }
            }
        }
        // What the guest has not said by the time it returns it never will.
        let (answer, _charge) = match early {
            Some(answer) => answer,
            None => unconstrained(answer)
                .now_or_never()
                .ok_or_else(unfinished)??,
        };
        check(answer, is_head)
    }
}

/// Bytes that the host holds for a request while a module answers it.
fn weight(request: &Request<Bytes>) -> u64 {
    let fields = request.headers().iter();
    let field = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
        name.as_str().len() + value.len() + FIELD_OVERHEAD
    };
    let fields: usize = fields.map(field).sum();
    (request.body().len() + request.uri().path().len() + fields) as u64
}

/// A body as it comes, in blocks: pieces of a few bytes would take many times what they hold.
struct Blocks {
    blocks: Vec<Vec<u8>>,
    length: usize,
    charge: Charge,
}

/// Bytes of a block.
const BLOCK: usize = 64 << 10;

impl Blocks {
    fn new(account: &Account) -> Result<Self, Stop> {
        Ok(Self {
            blocks: Vec::new(),
            length: 0,
            charge: account.charge(0).map_err(wasmtime::Error::from)?,
        })
    }

    fn push(&mut self, mut data: &[u8]) -> Result<(), Overrun> {
        self.length += data.len();
        while !data.is_empty() {
            let last = self.blocks.last_mut().filter(|block| block.len() < BLOCK);
            let Some(block) = last else {
                self.charge.add(BLOCK as u64)?;
                self.blocks.push(Vec::with_capacity(BLOCK));
                continue;
            };
            let (now, later) = data.split_at(data.len().min(BLOCK - block.len()));
            block.extend_from_slice(now);
            data = later;
        }
        Ok(())
    }

    /// In one piece, and what is counted for it until the module has ended.
    fn join(self) -> (Bytes, Charge) {
        let mut whole = Vec::with_capacity(self.length);
        for block in self.blocks {
            whole.extend_from_slice(&block);
        }
        (whole.into(), self.charge)
    }
}

/// The whole response, up to `limit` bytes of body.
async fn collect(
    told: oneshot::Receiver<Told>,
    mut whole: Blocks,
    limit: u64,
    is_head: bool,
) -> Result<(Response<Bytes>, Charge), Stop> {
    let response = match told.await {
        Ok(Ok(response)) => response,
        Ok(Err(code)) => {
            let words = match code {
                // What the SDK makes of an error; the same words as those of a page's.
                ErrorCode::InternalError(Some(words)) => words,
                code => format!("it answered with an error in place of a response: {code:?}"),
            };
            return Err(Stop::Said(words));
        }
        Err(_) => return Err(unfinished()),
    };
    let (head, mut body) = response.into_parts();
    while let Some(frame) = body.frame().await {
        // To HEAD a module states the length of a body that it rightly does not write.
        if is_head && frame.is_err() {
            break;
        }
        let frame = frame.map_err(|error| {
            Stop::invalid(format!(
                "its body broke off ({error}): finish it, with as many bytes as its \
                 `content-length` says"
            ))
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if whole.length as u64 + data.len() as u64 > limit {
            let limit = size(limit);
            let words = format!("its response is larger than {limit} (limit `page`)");
            return Err(Stop::broken(FailureKind::Output, words));
        }
        whole.push(&data).map_err(wasmtime::Error::from)?;
    }
    let (whole, charge) = whole.join();
    Ok((Response::from_parts(head, whole), charge))
}

/// Framing is the server's: it knows the protocol and the connection. Hop-by-hop fields that
/// wasmtime does not refuse already (RFC 9110 section 7.6.1), and what wisr says itself, are too.
fn check(mut response: Response<Bytes>, is_head: bool) -> Result<Response<Bytes>, Stop> {
    let status = response.status();
    // RFC 9110 section 15: 600 and above are no statuses, those below 200 are not final.
    if !(200..=599).contains(&status.as_u16()) {
        let status = status.as_u16();
        let words = format!("status {status} is no final response: use 200 to 599");
        return Err(Stop::invalid(words));
    }
    if let Some(rule) = takes_own_cookie(response.headers()) {
        return Err(Stop::invalid(rule));
    }
    let reserved = |headers: &HeaderMap| {
        let is_reserved = |name: &&header::HeaderName| {
            matches!(**name, header::TE | header::TRAILER) || is_no_guests(name)
        };
        headers.keys().find(is_reserved).cloned()
    };
    if let Some(name) = reserved(response.headers()) {
        let words = format!("header `{name}` is wisr's to set: remove it from the response");
        return Err(Stop::invalid(words));
    }
    let has_body = !matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    );
    // RFC 9110 section 8.6: only HEAD and 304 may state the length of what they do not send.
    if !has_body {
        response.body_mut().clear();
    }
    let states_length = is_head && response.body().is_empty();
    if !states_length {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    Ok(response)
}

/// A body in memory cannot break off.
fn unreachable(never: Infallible) -> wasmtime_wasi_http::Error {
    match never {}
}

fn unfinished() -> Stop {
    Stop::invalid(
        "it returned without a complete response: set the `response-outparam` and finish the \
         `outgoing-body`",
    )
}
