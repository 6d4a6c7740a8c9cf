//! [`Served`]: any [`Api`] as the standard handler that the host calls; and the calls that it makes.

use std::io::{Read, Write};
use std::marker::PhantomData;

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

use crate::api::{Api, Request, Response};
use crate::bindings::api::wisr::page::revalidate as wit;
use crate::revalidate::{Call, Count, Fate, Mode, Report};
use crate::{Error, Result, bail};

/// An [`Api`] in the shape of `wasi:http/proxy`.
pub struct Served<A>(PhantomData<A>);

impl<A: Api> Guest for Served<A> {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        match receive(&request).and_then(A::handle).and_then(prepare) {
            Ok((response, body)) => send(response, &body, out),
            Err(error) => {
                let code = ErrorCode::InternalError(Some(error.to_string()));
                ResponseOutparam::set(out, Err(code));
            }
        }
    }
}

fn receive(request: &IncomingRequest) -> Result<Request> {
    let taken = || Error::msg("the body was taken");
    let incoming = request.consume().map_err(|()| taken())?;
    let mut stream = incoming.stream().map_err(|()| taken())?;
    let mut body = Vec::new();
    stream.read_to_end(&mut body)?;
    Ok(Request {
        method: method(request.method()),
        target: request.path_with_query().unwrap_or_default(),
        headers: request.headers().entries(),
        body,
    })
}

fn method(method: Method) -> String {
    let name = match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(name) => return name,
    };
    name.to_owned()
}

fn prepare(response: Response) -> Result<(OutgoingResponse, Vec<u8>)> {
    let fields = Fields::new();
    for (name, value) in &response.headers {
        let added = fields.append(name, value.as_bytes());
        added.map_err(|_| Error::msg(format!("the header {name:?} cannot be sent")))?;
    }
    let outgoing = OutgoingResponse::new(fields);
    if outgoing.set_status_code(response.status).is_err() {
        bail!("{} is not an HTTP status", response.status);
    }
    Ok((outgoing, response.body))
}

/// What goes wrong from here on the host has noticed itself.
fn send(response: OutgoingResponse, bytes: &[u8], out: ResponseOutparam) {
    let body = response.body();
    ResponseOutparam::set(out, Ok(response));
    let Ok(body) = body else { return };
    if let Ok(mut stream) = body.write() {
        let _ = stream
            .write_all(bytes)
            .and_then(|()| Write::flush(&mut stream));
    }
    let _ = OutgoingBody::finish(body, None);
}

pub(crate) fn revalidate(call: Call) -> Result<Report> {
    let call = wit::Call {
        paths: call.paths,
        tags: call.tags,
        only_generated: call.only_generated,
        mode: call.mode.map(|mode| match mode {
            Mode::Regenerate => wit::Mode::Regenerate,
            Mode::Stale => wit::Mode::Stale,
            Mode::Purge => wit::Mode::Purge,
        }),
    };
    match wit::revalidate(&call) {
        Ok(report) => Ok(Report {
            done: report.done,
            fates: report
                .fates
                .into_iter()
                .zip(wit::counts())
                .map(fate)
                .collect(),
            warning: report.warning,
        }),
        Err(wit::Error::NotGranted(why) | wit::Error::Invalid(why) | wit::Error::TooMany(why)) => {
            Err(Error::msg(why))
        }
    }
}

fn fate((fate, count): (wit::Fate, Option<wit::Count>)) -> Fate {
    Fate {
        count: count.map(|wit::Count { pages, is_whole }| Count { pages, is_whole }),
        target: match fate.target {
            wit::Target::Path(target) | wit::Target::Tag(target) => target,
        },
        effect: match fate.effect {
            wit::Effect::Regenerated => "regenerated",
            wit::Effect::Stale => "stale",
            wit::Effect::Purged => "purged",
            wit::Effect::Absent => "absent",
            wit::Effect::NotGenerated => "not-generated",
            wit::Effect::UnknownRoute => "unknown-route",
            wit::Effect::Overloaded => "overloaded",
            wit::Effect::Failed => "failed",
        },
        message: fate.message,
    }
}
