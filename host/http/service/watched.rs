//! What those who watch are told: an author in the browser and on the terminal, an operator in the
//! log.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};

use super::super::Answer;
use super::super::body::Body;
use super::super::overlay::Overlay;
use super::super::witness::{Interest, TARGET, Witness};
use super::Site;
use crate::http::Upload;

impl Site {
    /// Answers while somebody watches: an author in the browser and on the terminal, an operator in
    /// the log.
    pub(super) fn watched(
        self: &Arc<Self>,
        mut request: Request<Upload>,
        peer: SocketAddr,
    ) -> Answer {
        let witness = Witness::of(&request);
        let injects = self.overlay.is_some() && Overlay::wanted(request.headers());
        if injects {
            Overlay::prepare(request.headers_mut());
        }
        let answer = self.route(request, peer);
        let site = self.clone();
        let finish = move |mut response| {
            if injects {
                response = Overlay::inject(response);
            }
            site.tell(&witness, &mut response);
            response
        };
        match answer {
            Answer::Now(response) => Answer::Now(finish(response)),
            Answer::Later(response) => {
                Answer::Later(Box::pin(async move { finish(response.await) }))
            }
        }
    }

    fn tell(&self, witness: &Witness, response: &mut Response<Body>) {
        let (line, interest) = witness.line(response);
        match (&self.overlay, interest) {
            (Some(overlay), Interest::Told) => overlay.say(&line),
            (None, Interest::Told) => tracing::debug!(target: TARGET, "{line}"),
            (_, Interest::Quiet) => tracing::trace!(target: TARGET, "{line}"),
        }
        if self.overlay.is_some() {
            witness.time(response);
        }
    }
}

/// Whether somebody wants to read of each look into the cache.
pub(super) fn is_watched() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::DEBUG)
}
