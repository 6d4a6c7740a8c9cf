//! `Operation`: one thing that programs can ask for: where it is found, what does it, and the types
//! that it reads and writes, from which it is documented.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::refusal::Refusal;
use super::super::{Admin, answer};
use crate::http::{Body, upload};

/// An answer that is being made.
type Pending = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// The schema of a type.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// One thing that programs can ask for.
pub(in crate::admin) struct Operation {
    pub(in crate::admin) method: Method,
    /// A segment in braces is a parameter.
    pub(in crate::admin) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) asks: Asks,
    /// The form of the answer.
    pub(super) kind: Kind,
    /// The statuses that the answer comes with, beside 200.
    pub(super) also: Vec<(StatusCode, &'static str)>,
    /// What it may refuse, beside what every operation does.
    pub(super) refuses: &'static [(StatusCode, &'static str)],
    run: Box<dyn Fn(Arc<Admin>, Given) -> Pending + Send + Sync>,
}

/// Where it reads what it is asked from.
pub(super) enum Asks {
    /// The parameters in its path and query.
    Parameters(SchemaOf),
    /// A body of JSON, of so many bytes.
    Json(SchemaOf, usize),
}

/// What it answers with.
pub(super) enum Kind {
    Json(SchemaOf),
    Text(&'static str),
}

/// What it is given.
pub(in crate::admin) struct Given {
    /// The parameters of the path and the query, as those of a query are written.
    pub(in crate::admin) parameters: String,
    pub(in crate::admin) body: Bytes,
}

/// An answer and its status.
pub(in crate::admin) struct Told<A>(pub(in crate::admin) StatusCode, pub(in crate::admin) A);

impl<A> From<A> for Told<A> {
    fn from(answer: A) -> Self {
        Self(StatusCode::OK, answer)
    }
}

impl Operation {
    /// Something to be shown, by the parameters `Q`.
    pub(super) fn show<Q, A, F, R>(path: &'static str, summary: &'static str, show: F) -> Self
    where
        Q: DeserializeOwned + JsonSchema + Send + 'static,
        A: Serialize + JsonSchema,
        F: Fn(Arc<Admin>, Q) -> R + Copy + Send + Sync + 'static,
        R: Future<Output = Result<Told<A>, Refusal>> + Send + 'static,
    {
        let run = move |admin, given: Given| -> Pending {
            Box::pin(async move {
                let asked = serde_html_form::from_str(&given.parameters)
                    .map_err(|error| Refusal::malformed(error.to_string()));
                respond(async { show(admin, asked?).await }).await
            })
        };
        let asks = Asks::Parameters(schema_of::<Q>);
        let kind = Kind::Json(schema_of::<A>);
        Self::new(Method::GET, path, summary, asks, kind, Box::new(run))
    }

    /// Something to be done, by a body `B` of at most `limit` bytes, which is written as `hint`
    /// says.
    pub(super) fn act<B, A, F, R>(
        path: &'static str,
        summary: &'static str,
        (limit, hint): (usize, &'static str),
        act: F,
    ) -> Self
    where
        B: DeserializeOwned + JsonSchema + Send + 'static,
        A: Serialize + JsonSchema,
        F: Fn(Arc<Admin>, B) -> R + Copy + Send + Sync + 'static,
        R: Future<Output = Result<Told<A>, Refusal>> + Send + 'static,
    {
        let run = move |admin, given: Given| -> Pending {
            Box::pin(async move {
                let asked = upload::object(&given.body)
                    .map_err(|error| Refusal::malformed(format!("the body is {hint}: {error}")));
                respond(async { act(admin, asked?).await }).await
            })
        };
        let asks = Asks::Json(schema_of::<B>, limit);
        let kind = Kind::Json(schema_of::<A>);
        Self::new(Method::POST, path, summary, asks, kind, Box::new(run))
    }

    /// Text of a content type of its own.
    pub(super) fn text(
        path: &'static str,
        summary: &'static str,
        kind: &'static str,
        text: fn(&Admin) -> String,
    ) -> Self {
        let run = move |admin: Arc<Admin>, _: Given| -> Pending {
            Box::pin(async move { answer::text(StatusCode::OK, kind, text(&admin)) })
        };
        let asks = Asks::Parameters(schema_of::<Nothing>);
        let kind = Kind::Text(kind);
        Self::new(Method::GET, path, summary, asks, kind, Box::new(run))
    }

    fn new(
        method: Method,
        path: &'static str,
        summary: &'static str,
        asks: Asks,
        kind: Kind,
        run: Box<dyn Fn(Arc<Admin>, Given) -> Pending + Send + Sync>,
    ) -> Self {
        Self {
            method,
            path,
            summary,
            asks,
            kind,
            also: Vec::new(),
            refuses: &[],
            run,
        }
    }

    /// The same with further statuses of its answer.
    pub(super) fn also(mut self, also: &[(StatusCode, &'static str)]) -> Self {
        self.also.extend_from_slice(also);
        self
    }

    /// The same with further statuses of refusals.
    pub(super) fn refuses(self, refuses: &'static [(StatusCode, &'static str)]) -> Self {
        Self { refuses, ..self }
    }

    /// Bytes of the body that it reads, at most.
    pub(in crate::admin) fn body_limit(&self) -> usize {
        match self.asks {
            Asks::Parameters(_) => 0,
            Asks::Json(_, limit) => limit,
        }
    }

    /// Does it.
    pub(in crate::admin) async fn run(&self, admin: Arc<Admin>, given: Given) -> Response<Body> {
        (self.run)(admin, given).await
    }
}

/// No parameters.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// What a path leads to.
pub(in crate::admin) enum Found<'a> {
    /// An operation, and the parameters in its path.
    Operation(&'a Operation, String),
    /// Operations of other methods: these.
    Methods(&'static str),
    /// None.
    Nothing,
}

/// The operation for a method and a path.
pub(in crate::admin) fn find<'a>(
    operations: &'a [Operation],
    method: &Method,
    path: &str,
) -> Found<'a> {
    let wanted = match *method {
        Method::HEAD => &Method::GET,
        _ => method,
    };
    let mut found = Found::Nothing;
    for operation in operations {
        let Some(parameters) = parameters(operation.path, path) else {
            continue;
        };
        if operation.method == *wanted {
            return Found::Operation(operation, parameters);
        }
        found = Found::Methods(match operation.method {
            Method::POST => "POST",
            _ => "GET, HEAD",
        });
    }
    found
}

/// The parameters of a path that fits a template, as those of a query are written.
fn parameters(template: &str, path: &str) -> Option<String> {
    let mut found = String::new();
    let mut segments = path.split('/');
    for part in template.split('/') {
        let segment = segments.next()?;
        match part
            .strip_prefix('{')
            .and_then(|part| part.strip_suffix('}'))
        {
            Some(name) => found = format!("{found}{name}={segment}&"),
            None if part == segment => {}
            None => return None,
        }
    }
    segments.next().is_none().then_some(found)
}

async fn respond<A: Serialize>(
    told: impl Future<Output = Result<Told<A>, Refusal>>,
) -> Response<Body> {
    match told.await {
        Ok(Told(status, told)) => answer::json(status, &told),
        Err(refusal) => answer::refusal(&refusal),
    }
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_fits_its_template() {
        for (template, path, expected) in [
            ("/api/routes", "/api/routes", Some("")),
            ("/api/routes", "/api/routes/", None),
            ("/api/incidents/{id}", "/api/incidents/7", Some("id=7&")),
            ("/api/incidents/{id}", "/api/incidents", None),
            ("/api/incidents/{id}", "/api/incidents/7/8", None),
            ("/api/incidents/{id}", "/api/incident/7", None),
        ] {
            assert_eq!(parameters(template, path).as_deref(), expected, "{path}");
        }
    }
}
