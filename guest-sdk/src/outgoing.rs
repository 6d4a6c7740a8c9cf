//! [`send`]: one HTTP request through `wasi:http`, waited for to its end.

use std::io::{Read, Write};

use wasip2::http::outgoing_handler::{self, ErrorCode};
use wasip2::http::types::{
    FutureIncomingResponse, HeaderError, Headers, IncomingResponse, Method, OutgoingBody,
    OutgoingRequest, Scheme,
};

use crate::fetch::{Request, Response, Target};
use crate::{Error, Result, bail};

pub(crate) fn send(request: &Request, target: &Target<'_>) -> Result<Response> {
    let outgoing = prepare(request, target)?;
    let body = if request.body.is_empty() {
        None
    } else {
        Some(
            outgoing
                .body()
                .map_err(|()| Error::msg("the request has no body"))?,
        )
    };
    let answer = outgoing_handler::handle(outgoing, None).map_err(refused)?;
    // A server may answer before it has read everything, and that answer is worth more than the
    // broken pipe; when there is no answer, its error says what broke.
    if let Some(body) = body {
        let _ = write(body, &request.body);
    }
    receive(&request.url, &wait(&answer)?)
}

fn prepare(request: &Request, target: &Target<'_>) -> Result<OutgoingRequest> {
    let headers = Headers::new();
    for (name, value) in &request.headers {
        append(&headers, name, value)?;
    }
    if !request.body.is_empty() && !headers.has("content-length") {
        append(&headers, "content-length", &request.body.len().to_string())?;
    }
    let outgoing = OutgoingRequest::new(headers);
    let scheme = if target.https {
        Scheme::Https
    } else {
        Scheme::Http
    };
    if outgoing.set_method(&method(&request.method)).is_err() {
        bail!("{:?} is not an HTTP method", request.method);
    }
    if outgoing.set_scheme(Some(&scheme)).is_err()
        || outgoing.set_authority(Some(target.authority)).is_err()
        || outgoing
            .set_path_with_query(Some(&target.path_and_query))
            .is_err()
    {
        bail!("the URL is malformed");
    }
    Ok(outgoing)
}

fn append(headers: &Headers, name: &str, value: &str) -> Result<()> {
    headers.append(name, value.as_bytes()).map_err(|error| {
        let why = match error {
            HeaderError::InvalidSyntax => "its name or value is malformed",
            HeaderError::Forbidden => "the host sets it",
            HeaderError::Immutable => "the headers are closed",
        };
        Error::msg(format!("the header {name:?} cannot be sent: {why}"))
    })
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

fn write(body: OutgoingBody, bytes: &[u8]) -> Result<()> {
    let mut stream = body
        .write()
        .map_err(|()| Error::msg("the body was taken"))?;
    stream.write_all(bytes)?;
    stream.flush()?;
    // The body cannot be finished while its stream lives.
    drop(stream);
    OutgoingBody::finish(body, None).map_err(refused)
}

fn wait(answer: &FutureIncomingResponse) -> Result<IncomingResponse> {
    loop {
        match answer.get() {
            None => answer.subscribe().block(),
            Some(Ok(response)) => return response.map_err(refused),
            Some(Err(())) => bail!("the answer was taken"),
        }
    }
}

fn receive(url: &str, response: &IncomingResponse) -> Result<Response> {
    let incoming = response
        .consume()
        .map_err(|()| Error::msg("the body was taken"))?;
    let mut stream = incoming
        .stream()
        .map_err(|()| Error::msg("the body was taken"))?;
    let mut body = Vec::new();
    stream.read_to_end(&mut body)?;
    Ok(Response {
        url: url.to_owned(),
        status: response.status(),
        headers: response.headers().entries(),
        body,
    })
}

// In words and by hand: the derived `Debug` of every code and payload would be a tenth of a small
// module.
fn refused(code: ErrorCode) -> Error {
    Error::msg(match code {
        ErrorCode::InternalError(Some(message)) => return Error::msg(message),
        ErrorCode::HttpRequestDenied => {
            "denied: the origin is not in the `outbound` list of the route"
        }
        ErrorCode::DestinationIpProhibited => "denied: the address is not public",
        ErrorCode::DnsTimeout => "looking up the host took too long",
        ErrorCode::DnsError(_) | ErrorCode::DestinationNotFound => "the host is unknown",
        ErrorCode::DestinationUnavailable | ErrorCode::DestinationIpUnroutable => {
            "the host cannot be reached"
        }
        ErrorCode::ConnectionRefused => "connection refused",
        ErrorCode::ConnectionTerminated => "the connection was closed before the answer",
        ErrorCode::ConnectionTimeout => "connecting took too long",
        ErrorCode::ConnectionReadTimeout | ErrorCode::HttpResponseTimeout => {
            "the answer took too long"
        }
        ErrorCode::ConnectionWriteTimeout => "sending the request took too long",
        ErrorCode::ConnectionLimitReached => "too many requests at once",
        ErrorCode::TlsProtocolError | ErrorCode::TlsAlertReceived(_) => "TLS failed",
        ErrorCode::TlsCertificateError => "the host's certificate is not trusted",
        ErrorCode::HttpRequestBodySize(_) => "the request's body is too large",
        ErrorCode::HttpResponseBodySize(_) => "the answer is too large",
        ErrorCode::HttpResponseIncomplete => "the answer broke off",
        ErrorCode::HttpProtocolError => "the answer is not HTTP",
        ErrorCode::LoopDetected => "the request leads back to this server",
        _ => "the request failed",
    })
}
