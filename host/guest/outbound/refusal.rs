//! `Refusal`: why a fetch had no answer, in a sentence for people and in `wasi:http`'s code for
//! the guest.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls;
use wasmtime_wasi_http::Error;

use super::target::{Host, HostError};

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("guests speak http and https only, not `{0}`")]
    Scheme(String),
    #[error("the URL has a user name or password: send an authorization header instead")]
    Userinfo,
    #[error("the URL's path must start with `/`")]
    Path,
    #[error("the URL's host: {0}")]
    Host(#[from] HostError),
    #[error("{0} opens a tunnel or echoes headers: guests cannot use it")]
    Method(http::Method),
    #[error("not allowed: add \"{entry}\" to outbound of {route}")]
    NotAllowed { entry: String, route: Arc<str> },
    #[error("the generation has made as many requests as it may (limit `fetches`: {0})")]
    Requests(u32),
    #[error(
        "as many requests as may be at once (limit `fetches-in-flight`: {0}) took until the generation's time was up"
    )]
    Slots(u32),
    #[error("`{host}` was not resolved within {} ms", .limit.as_millis())]
    DnsTimeout { host: Host, limit: Duration },
    #[error("`{host}` cannot be resolved: {error}")]
    Dns { host: Host, error: String },
    #[error(
        "`{host}` leads to {address} ({reason}) and to nothing public: add \"{entry}\" to outbound of {route} to open that address"
    )]
    Closed {
        host: Host,
        address: IpAddr,
        reason: &'static str,
        entry: String,
        route: Arc<str>,
    },
    #[error("{0} is this server: a page that fetches itself waits for itself")]
    Loop(SocketAddr),
    #[error("no connection within {} ms", .0.as_millis())]
    ConnectTimeout(Duration),
    #[error("{0} refused the connection")]
    Refused(SocketAddr),
    #[error("{address} cannot be reached: {error}")]
    Unreachable {
        address: SocketAddr,
        error: std::io::Error,
    },
    #[error("TLS with `{host}` failed: {error}")]
    Tls { host: Host, error: std::io::Error },
    #[error("no answer within {} ms", .0.as_millis())]
    FirstByte(Duration),
    #[error("the answer stopped arriving for {} ms or outlasted the generation", .0.as_millis())]
    Stalled(Duration),
    #[error("the answer's head is larger than {0} bytes or has too many fields")]
    HeadSize(usize),
    #[error("the generation sent more than {0} bytes")]
    RequestSize(u64),
    #[error("the generation received more than {0} bytes")]
    ResponseSize(u64),
    #[error("the server switched protocols unasked")]
    Upgrade,
    #[error("the server closed the connection before the answer was complete")]
    Incomplete,
    #[error("HTTP failed: {0}")]
    Broken(String),
}

impl Refusal {
    /// What became of an exchange that hyper gave up.
    pub(super) fn of_hyper(error: &hyper::Error, head: usize) -> Self {
        let cause = std::error::Error::source(error);
        if let Some(Error::HttpRequestBodySize(Some(limit))) =
            cause.and_then(|cause| cause.downcast_ref::<Error>())
        {
            return Self::RequestSize(*limit);
        }
        if error.is_parse_too_large() {
            Self::HeadSize(head)
        } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
            Self::Incomplete
        } else {
            Self::Broken(
                cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")),
            )
        }
    }

    /// The word for logs.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Scheme(_) | Self::Userinfo | Self::Path | Self::Host(_) => "url",
            Self::Method(_) => "method",
            Self::NotAllowed { .. } => "denied",
            Self::Requests(_) | Self::Slots(_) => "limit",
            Self::DnsTimeout { .. } | Self::Dns { .. } => "dns",
            Self::Closed { .. } => "address",
            Self::Loop(_) => "loop",
            Self::ConnectTimeout(_) | Self::FirstByte(_) | Self::Stalled(_) => "timeout",
            Self::Refused(_) | Self::Unreachable { .. } => "connect",
            Self::Tls { .. } => "tls",
            Self::HeadSize(_) | Self::RequestSize(_) | Self::ResponseSize(_) => "size",
            Self::Upgrade | Self::Incomplete | Self::Broken(_) => "protocol",
        }
    }

    /// The code that the guest sees. It says no more of the network than the guest may know.
    pub(super) fn to_guest(&self) -> Error {
        match self {
            Self::Scheme(_) | Self::NotAllowed { .. } => Error::HttpRequestDenied,
            Self::Userinfo | Self::Path | Self::Host(_) => Error::HttpRequestUriInvalid,
            Self::Method(_) => Error::HttpRequestMethodInvalid,
            Self::Requests(_) | Self::Slots(_) => Error::ConnectionLimitReached,
            Self::DnsTimeout { .. } => Error::DnsTimeout,
            Self::Dns { .. } => Error::DnsError {
                rcode: None,
                info_code: None,
            },
            Self::Closed { .. } => Error::DestinationIpProhibited,
            Self::Loop(_) => Error::LoopDetected,
            Self::ConnectTimeout(_) => Error::ConnectionTimeout,
            Self::Refused(_) => Error::ConnectionRefused,
            Self::Unreachable { .. } => Error::DestinationUnavailable,
            Self::Tls { error, .. } => tls_to_guest(error),
            Self::FirstByte(_) | Self::Stalled(_) => Error::ConnectionReadTimeout,
            Self::HeadSize(size) => Error::HttpResponseHeaderSectionSize(u32::try_from(*size).ok()),
            Self::RequestSize(limit) => Error::HttpRequestBodySize(Some(*limit)),
            Self::ResponseSize(limit) => Error::HttpResponseBodySize(Some(*limit)),
            Self::Upgrade => Error::HttpUpgradeFailed,
            Self::Incomplete => Error::HttpResponseIncomplete,
            Self::Broken(_) => Error::HttpProtocolError,
        }
    }
}

fn tls_to_guest(error: &std::io::Error) -> Error {
    let cause = error.get_ref();
    match cause.and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => Error::TlsCertificateError,
        Some(rustls::Error::AlertReceived(alert)) => Error::TlsAlertReceived {
            alert_id: Some(u8::from(*alert)),
            alert_message: Some(format!("{alert:?}")),
        },
        _ => Error::TlsProtocolError,
    }
}
