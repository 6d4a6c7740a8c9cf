//! `ApiRouted`: an API route with its module and its rules.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};

use crate::guest::{ApiGuest, Module, Revalidate, Unanswered};
use crate::page::Failure;
use crate::route::Pattern;
use crate::telemetry::{Clock, Incidents, Subject};

use super::routed::RouteConfig;

/// An API route of a release. While its file stays the same, releases share it.
///
/// It is on no `trial`: what makes its module fail may be the request, so that whoever can
/// send requests could take a good module down.
pub struct ApiRouted {
    /// The module's file, relative to the folder.
    pub file: PathBuf,
    /// The module.
    pub module: Arc<Module>,
    /// The rules that it was loaded under.
    pub config: RouteConfig,
    /// Which paths it matches.
    pub pattern: Pattern,
    pub(super) guest: ApiGuest,
    pub(super) clock: Clock,
    pub(super) incidents: Arc<Incidents>,
}

/// Why an API route has no answer to a request.
#[derive(Debug)]
pub enum ApiError {
    /// Too many modules are running; the request did not reach its own.
    Busy,
    /// The module failed; there is an incident.
    Failed(Arc<Failure>),
}

impl ApiRouted {
    /// Has the module answer a request, in the course of which it may call `revalidate` if its
    /// rules grant that.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn answer(
        &self,
        request: Request<Bytes>,
        revalidate: Revalidate,
    ) -> Result<Response<Bytes>, ApiError> {
        let path = request.uri().path().to_owned();
        let route = self.pattern.route();
        let answered = self.guest.answer(route, request, revalidate).await;
        answered.map_err(|unanswered| match unanswered {
            Unanswered::Busy => ApiError::Busy,
            Unanswered::Failed(failure) => ApiError::Failed(self.report(path, *failure)),
        })
    }

    fn report(&self, path: String, failure: Failure) -> Arc<Failure> {
        let failure = Arc::new(failure);
        let subject = Subject::Generation {
            route: self.pattern.route(),
            path,
            module: self.module.digest().short(),
            cause: "api".into(),
        };
        let (kind, message) = (failure.kind.as_str(), failure.message.clone());
        let account = Some(Arc::clone(&failure));
        self.incidents
            .record(self.clock.now(), subject, kind, message, account);
        failure
    }
}
