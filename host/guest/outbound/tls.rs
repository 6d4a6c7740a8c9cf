//! The trust of outgoing TLS: the platform's roots, or Mozilla's where the platform has none, and
//! a company's own.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::client::ClientError;

/// A connector that trusts the public roots and those in the PEM file `extra`.
pub(super) fn connector(extra: Option<&Path>) -> Result<TlsConnector, ClientError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(file) = extra {
        add_file(&mut roots, file)?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(ClientError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn add_file(roots: &mut RootCertStore, file: &Path) -> Result<(), ClientError> {
    let unreadable = |error: String| ClientError::Roots {
        file: file.to_owned(),
        error,
    };
    let found = CertificateDer::pem_file_iter(file).map_err(|e| unreadable(e.to_string()))?;
    let mut count = 0;
    for certificate in found {
        let certificate = certificate.map_err(|e| unreadable(e.to_string()))?;
        roots
            .add(certificate)
            .map_err(|e| unreadable(e.to_string()))?;
        count += 1;
    }
    if count == 0 {
        return Err(unreadable("it holds no certificate".to_owned()));
    }
    Ok(())
}
