//! One HTTP request from the shell: over TCP, or TLS where the address says so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::config::Environment;

/// The largest answer, in bytes: a result for each of many thousand paths.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// What is asked of a server.
pub(super) struct Call<'a> {
    /// Its address; a path in it comes before `path`.
    pub(super) server: &'a Uri,
    /// The endpoint.
    pub(super) path: &'a str,
    /// What the server must be shown, if anything.
    pub(super) token: Option<&'a str>,
    /// What is posted; none gets.
    pub(super) body: Option<&'a Value>,
}

/// Which of a server's two addresses is called.
#[derive(Debug, Clone, Copy)]
pub(super) enum Listener {
    /// Where readers are answered.
    Public,
    /// Where operators are.
    Admin,
}

impl Listener {
    /// The address that the command line gives, else the one that the server in this environment
    /// listens on, else the default.
    ///
    /// # Errors
    /// When the variable holds no address, or names a file that cannot be read.
    pub(super) fn address(self, given: Option<&Uri>) -> anyhow::Result<Uri> {
        match given {
            Some(address) => Ok(address.clone()),
            None => self.in_environment(&Environment::of_process()),
        }
    }

    fn in_environment(self, environment: &Environment) -> anyhow::Result<Uri> {
        let (variable, default) = match self {
            Listener::Public => ("WISR_SERVER_LISTEN", "127.0.0.1:3000"),
            Listener::Admin => ("WISR_SERVER_ADMIN", "127.0.0.1:3001"),
        };
        let said = environment.value(variable)?;
        let mut address: SocketAddr = said
            .as_deref()
            .unwrap_or(default)
            .parse()
            .with_context(|| format!("{variable} holds no address: write {default}"))?;
        // A server listens on all addresses, but is called at one.
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        Ok(format!("http://{address}").parse()?)
    }
}

/// Reads the address of a server: `http://host:port`, or just `host:port`.
///
/// # Errors
/// What it should be instead.
pub(super) fn server(text: &str) -> Result<Uri, String> {
    let whole = match text.contains("://") {
        true => text.to_owned(),
        false => format!("http://{text}"),
    };
    let uri: Uri = whole
        .parse()
        .map_err(|error| format!("{error}: write http://host:port"))?;
    match uri.scheme_str() {
        Some("http" | "https") => Ok(uri),
        other => Err(format!(
            "`{}` is neither http nor https",
            other.unwrap_or_default()
        )),
    }
}

/// The token to show to a server: the `given` one, else that of the environment.
///
/// # Errors
/// When the environment names a file that cannot be read, or two tokens.
pub(super) fn token(given: Option<&str>, variable: &str) -> anyhow::Result<Option<String>> {
    match given {
        Some(token) => Ok(Some(token.to_owned())),
        None => Environment::of_process().value(variable),
    }
}

/// What to say of an admin port that does not answer.
pub(super) fn unreachable(server: &Uri, error: &anyhow::Error) -> String {
    format!(
        "cannot reach {server}: {error:#}. Is a server running (`wisr serve SITE`), and is this its \
         admin port? `--admin` names another"
    )
}

/// Calls the server.
///
/// # Errors
/// No server there, or a connection that breaks.
pub(super) async fn call(call: Call<'_>) -> anyhow::Result<(StatusCode, Bytes)> {
    let server = call.server;
    let (Some(host), Some(scheme)) = (server.host(), server.scheme_str()) else {
        bail!("`{server}` is no address of a server: write http://host:port");
    };
    let tls = scheme == "https";
    let port = server.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let request = request(&call)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, port)).await?;
    if tls {
        let name = ServerName::try_from(bare.to_owned()).context("not a host's name")?;
        let connector = TlsConnector::from(Arc::new(client_config()));
        send(connector.connect(name, stream).await?, request).await
    } else {
        send(stream, request).await
    }
}

fn request(call: &Call<'_>) -> anyhow::Result<Request<Full<Bytes>>> {
    let authority = call
        .server
        .authority()
        .map_or("", http::uri::Authority::as_str);
    let prefix = call.server.path().trim_end_matches('/');
    let mut request = Request::new(Full::default());
    *request.uri_mut() = format!("{prefix}{}", call.path).parse()?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::try_from(authority)?);
    if let Some(token) = call.token {
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))
            .context("the token has characters that HTTP does not allow")?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
    }
    if let Some(body) = call.body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *request.method_mut() = Method::POST;
        *request.body_mut() = Full::new(Bytes::from(body.to_string()));
    }
    Ok(request)
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the request's sender, or by an error that the request reports as well.
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
        .collect()
        .await;
    connection.abort();
    let body = body.map_err(|error| anyhow::anyhow!(error))?;
    Ok((status, body.to_bytes()))
}

/// Trusts what this machine trusts; where it trusts nothing, what Mozilla does.
fn client_config() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_where_the_server_of_this_environment_listens() {
        let address = |listener: Listener, variables: &[(&str, &str)]| {
            let variables = variables.iter();
            let owned = variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let found = listener.in_environment(&owned.collect());
            found
                .map(|uri| uri.to_string())
                .map_err(|error| format!("{error:#}"))
        };
        let admin = |value| address(Listener::Admin, &[("WISR_SERVER_ADMIN", value)]);
        assert_eq!(admin("127.0.0.2:9").unwrap(), "http://127.0.0.2:9/");
        assert_eq!(admin("0.0.0.0:9").unwrap(), "http://127.0.0.1:9/");
        assert_eq!(admin("[::]:9").unwrap(), "http://[::1]:9/");
        // An empty variable says nothing.
        assert_eq!(admin("").unwrap(), "http://127.0.0.1:3001/");
        assert!(admin("here").unwrap_err().contains("WISR_SERVER_ADMIN"));
        let other = [("WISR_SERVER_ADMIN", "127.0.0.1:9")];
        let public = address(Listener::Public, &other).unwrap();
        assert_eq!(public, "http://127.0.0.1:3000/");
    }

    #[test]
    fn an_address_needs_no_scheme() {
        for (text, expected) in [
            ("127.0.0.1:1", Ok("http://127.0.0.1:1/")),
            ("localhost", Ok("http://localhost/")),
            ("[::1]:3001", Ok("http://[::1]:3001/")),
            ("https://a.example/x", Ok("https://a.example/x")),
            ("ftp://a", Err("`ftp` is neither http nor https")),
        ] {
            let read = server(text).map(|uri| uri.to_string());
            assert_eq!(
                read,
                expected.map(str::to_owned).map_err(str::to_owned),
                "{text}"
            );
        }
        for text in ["", "http://", "a b"] {
            let told = server(text).unwrap_err();
            assert!(told.contains("http://host:port"), "{text}: {told}");
        }
    }
}
