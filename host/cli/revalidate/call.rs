//! One HTTP request from the shell: over TCP, or TLS where the address says so.

use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The largest answer, in bytes: a result for each of many thousand paths.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Posts to the server's revalidate endpoint.
///
/// # Errors
/// No server there, a connection that breaks, or an address that is no web address.
pub(super) async fn post(
    server: &Uri,
    token: &str,
    body: &Value,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let (Some(host), Some(scheme)) = (server.host(), server.scheme_str()) else {
        bail!("`{server}` is no address of a server: write http://host:port");
    };
    let tls = match scheme {
        "http" => false,
        "https" => true,
        other => bail!("`{other}` is neither http nor https"),
    };
    let port = server.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let request = request(server, token, body)?;
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

fn request(server: &Uri, token: &str, body: &Value) -> anyhow::Result<Request<Full<Bytes>>> {
    let authority = server.authority().map_or("", http::uri::Authority::as_str);
    let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))
        .context("the token has characters that HTTP does not allow")?;
    bearer.set_sensitive(true);
    let prefix = server.path().trim_end_matches('/');
    Ok(Request::post(format!("{prefix}/api/revalidate"))
        .header(HOST, authority)
        .header(AUTHORIZATION, bearer)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.to_string())))?)
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
