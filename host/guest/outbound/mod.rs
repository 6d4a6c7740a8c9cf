//! `Policy`: which hosts a page may reach. This first version reaches none.

use std::sync::Arc;

use tokio::time::Instant;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::Limits;
use crate::page::Fetch;

/// The hosts that a route may reach.
#[derive(Debug, Default)]
pub struct Policy;

/// What all routes share to reach hosts.
#[derive(Debug, Clone, Default)]
pub struct Client;

/// The outgoing requests of one generation.
#[derive(Debug)]
pub struct Session;

impl Client {
    /// The requests of a generation that ends at `deadline`.
    pub fn session(&self, _: Arc<Policy>, _: &Limits, _: Instant) -> Session {
        Session
    }
}

impl Session {
    /// The requests so far, in order.
    pub fn fetches(&self) -> Vec<Fetch> {
        Vec::new()
    }
}

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for Session {
    fn send_request(
        &mut self,
        _: ::http::Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Io,
    ) -> Box<dyn Future<Output = Result<(::http::Response<WasiBody>, Io), Error>> + Send> {
        Box::new(async { Err(Error::HttpRequestDenied) })
    }
}
