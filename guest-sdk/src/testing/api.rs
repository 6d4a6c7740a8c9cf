//! [`ApiTest`]: one request to an API route, natively.

use std::marker::PhantomData;

use super::{Scope, World};
use crate::api::{Api, Request, Response};
use crate::revalidate::Call;
use crate::{Body, Result};

/// One request to an [`Api`], with everything that it may ask for.
///
/// ```
/// # use wisr_guest::api::{Api, Request, Response};
/// # use wisr_guest::{Result, revalidate, setting};
/// # struct Hook;
/// # impl Api for Hook {
/// #     fn handle(request: Request) -> Result<Response> {
/// #         if !request.knows(&setting("secret").unwrap_or_default()) {
/// #             return Ok(Response::text("Invalid token").status(401));
/// #         }
/// #         revalidate::path("/posts/1")?;
/// #         Response::json("done")
/// #     }
/// # }
/// # fn main() -> Result<()> {
/// use wisr_guest::testing::ApiTest;
///
/// let answered = ApiTest::<Hook>::new("GET", "/api/hook?secret=s3cret")
///     .setting("secret", "s3cret")
///     .send()?;
/// assert_eq!(answered.response.status, 200);
/// assert_eq!(answered.calls[0].paths, ["/posts/1"]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a test does nothing until it sends"]
pub struct ApiTest<A> {
    request: Request,
    world: World,
    api: PhantomData<A>,
}

/// What an API route answered, and what it had made anew: all of it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The answer.
    pub response: Response,
    /// The calls in order.
    pub calls: Vec<Call>,
}

impl<A: Api> ApiTest<A> {
    /// A request: `new("POST", "/api/hook?secret=1")`.
    pub fn new(method: impl Into<String>, target: impl Into<String>) -> Self {
        Self {
            request: Request {
                method: method.into(),
                target: target.into(),
                ..Request::default()
            },
            world: World::default(),
            api: PhantomData,
        }
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into().to_ascii_lowercase();
        self.request.headers.push((name, value.into().into_bytes()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.request.body = body.into().into_bytes();
        self
    }

    /// Adds a setting of the route.
    pub fn setting(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.world.settings.push((key.into(), value.into()));
        self
    }

    /// Adds the answer to a fetch of this URL, by any method.
    pub fn fetch(mut self, url: impl Into<String>, status: u16, body: impl Into<Body>) -> Self {
        self.world.answer(url, status, body);
        self
    }

    /// Has it answered.
    ///
    /// # Errors
    /// What the route returned.
    pub fn send(self) -> Result<Answered> {
        let _scope = Scope::enter(self.world);
        let response = A::handle(self.request)?;
        let calls = super::calls();
        Ok(Answered { response, calls })
    }
}
