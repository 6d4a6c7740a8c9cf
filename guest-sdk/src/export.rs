//! [`Exported`]: any [`Page`] as the component exports that the host calls.

use std::marker::PhantomData;

use crate::bindings::exports::wisr::page::{page, paths};
use crate::bindings::wisr::page::page_types as wit;
use crate::page::{from_json, to_json};
use crate::{
    Body, Cause, Context, Document, Fallback, Freshness, Outcome, Page, Param, StaticProps,
};

/// A [`Page`] in the shape of the contract.
pub struct Exported<P>(PhantomData<P>);

impl<P: Page> page::Guest for Exported<P> {
    fn static_props(ctx: wit::Context) -> Result<wit::Outcome, String> {
        P::static_props(&ctx.into())
            .and_then(outcome)
            .map_err(|error| error.to_string())
    }

    fn render(ctx: wit::Context, data: String) -> Result<wit::Document, String> {
        from_json(&data)
            .and_then(|props| P::render(&ctx.into(), props))
            .map(Into::into)
            .map_err(|error| error.to_string())
    }
}

impl<P: Page> paths::Guest for Exported<P> {
    fn static_paths() -> Result<paths::PathList, String> {
        let listed = P::static_paths().map_err(|error| error.to_string())?;
        let fallback = match listed.fallback {
            Fallback::NotFound => paths::Fallback::NotFound,
            Fallback::Blocking => paths::Fallback::Blocking,
            Fallback::Shell => paths::Fallback::Shell,
        };
        let param = |Param { name, values }| wit::Param { name, values };
        let path = |params: Vec<Param>| params.into_iter().map(param).collect();
        let paths = listed.paths.into_iter().map(path).collect();
        Ok(paths::PathList { paths, fallback })
    }

    fn shell(ctx: wit::Context) -> Result<wit::Document, String> {
        P::shell(&ctx.into())
            .map(Into::into)
            .map_err(|error| error.to_string())
    }
}

fn outcome<P: serde::Serialize>(props: StaticProps<P>) -> crate::Result<wit::Outcome> {
    let freshness = match props.freshness {
        Freshness::Inherit => wit::Freshness::Inherit,
        Freshness::Never => wit::Freshness::Never,
        Freshness::Seconds(seconds) => wit::Freshness::Seconds(seconds),
    };
    if !matches!(props.outcome, Outcome::Props(_)) {
        // The contract has a place for the tags of props alone.
        props.tags.iter().for_each(|tag| crate::tag(tag));
    }
    Ok(match props.outcome {
        Outcome::Props(value) => {
            let data = to_json(&value)?;
            wit::Outcome::Props(wit::Props {
                data,
                freshness,
                tags: props.tags,
            })
        }
        Outcome::NotFound => wit::Outcome::NotFound(freshness),
        Outcome::Redirect { location, status } => wit::Outcome::Redirect(wit::Redirect {
            location,
            status,
            freshness,
        }),
    })
}

impl From<wit::Context> for Context {
    fn from(ctx: wit::Context) -> Self {
        let param = |wit::Param { name, values }| Param { name, values };
        Self {
            route: ctx.route,
            path: ctx.path,
            cause: match ctx.cause {
                wit::Cause::Build => Cause::Build,
                wit::Cause::FirstRequest => Cause::FirstRequest,
                wit::Cause::Stale => Cause::Stale,
                wit::Cause::OnDemand => Cause::OnDemand,
                wit::Cause::Draft => Cause::Draft,
            },
            params: ctx.params.into_iter().map(param).collect(),
            query: ctx.query,
        }
    }
}

impl From<Document> for wit::Document {
    fn from(document: Document) -> Self {
        Self {
            status: document.status,
            headers: document.headers,
            body: match document.body {
                Body::Text(text) => wit::Body::Text(text),
                Body::Bytes(bytes) => wit::Body::Bytes(bytes),
            },
        }
    }
}
