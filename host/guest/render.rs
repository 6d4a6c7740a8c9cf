//! `Guest`: a page's module with its limits and grants, which renders one route.

use std::sync::Arc;

use super::convert::{self, Decision};
use super::engine::Purpose;
use super::grants::Grants;
use super::limits::{CALL_BYTES, LISTING_BYTES};
use super::module::{Module, PageExports};
use super::run::Run;
use super::trap::Stop;
use crate::page::{
    Context, Digest, Document, Failure, FailureKind, Fallback, Generation, Outcome, PathList,
    Pending, Render, Tag,
};

/// A page's module, which renders one route under that route's grants.
pub struct Guest {
    module: Arc<Module>,
    exports: PageExports,
    grants: Grants,
}

impl Guest {
    /// A module as a route's renderer. `exports` are what the module's role says.
    pub fn new(module: Arc<Module>, exports: PageExports, grants: Grants) -> Self {
        Self {
            module,
            exports,
            grants,
        }
    }

    /// Bytes that one call may move: the largest result, and what comes with it.
    fn bound(&self) -> u64 {
        let limits = &self.grants.limits;
        limits.page.max(limits.props).saturating_add(CALL_BYTES)
    }

    async fn begin(&self, route: Arc<str>) -> Run<'_> {
        let bound = self.bound();
        let run = self.grants.begin(&self.module, route, bound, Purpose::Page);
        run.await
    }

    async fn produce(
        &self,
        run: &mut Run<'_>,
        context: &Context,
        known: Option<Digest>,
    ) -> Result<(Outcome, Vec<Tag>), Stop> {
        let instance = run.instantiate().await?;
        let page = run.code().page()?.load(&mut run.sandbox.store, &instance)?;
        let context = convert::context(context);

        let start = run.enter("static-props");
        let returned = page
            .call_static_props(&mut run.sandbox.store, &context)
            .await;
        run.cost.static_props = start.elapsed();
        let decided = convert::decision(returned?.map_err(Stop::Said)?, &self.grants.limits)?;
        let (props, tags) = match decided {
            Decision::Render(props, tags) => (props, tags),
            Decision::Done(outcome) => {
                return Ok((outcome, convert::tags(Vec::new(), run.given())?));
            }
        };
        if known.is_some_and(|known| known == Digest::of(&props.json)) {
            return Ok((Outcome::Unchanged(props), convert::tags(tags, run.given())?));
        }

        run.props = Some(props.json.clone());
        // The props were checked to be the guest's own UTF-8.
        let data = String::from_utf8_lossy(&props.json);
        let start = run.enter("render");
        let returned = page
            .call_render(&mut run.sandbox.store, &context, &data)
            .await;
        run.cost.render = start.elapsed();
        let document = convert::document(returned?.map_err(Stop::Said)?, &self.grants.limits)?;
        drop(data);
        Ok((
            Outcome::Page(props, document),
            convert::tags(tags, run.given())?,
        ))
    }

    async fn list(&self, run: &mut Run<'_>) -> Result<PathList, Stop> {
        let instance = run.instantiate().await?;
        let paths = run
            .code()
            .paths()?
            .load(&mut run.sandbox.store, &instance)?;
        run.enter("static-paths");
        let returned = paths.call_static_paths(&mut run.sandbox.store).await?;
        returned.map(convert::path_list).map_err(Stop::Said)
    }

    async fn make_shell(&self, run: &mut Run<'_>, context: &Context) -> Result<Document, Stop> {
        let instance = run.instantiate().await?;
        let paths = run
            .code()
            .paths()?
            .load(&mut run.sandbox.store, &instance)?;
        let context = convert::context(context);
        run.enter("shell");
        let returned = paths.call_shell(&mut run.sandbox.store, &context).await?;
        convert::document(returned.map_err(Stop::Said)?, &self.grants.limits)
    }
}

impl Render for Guest {
    fn module(&self) -> Digest {
        self.module.digest()
    }

    fn generate<'a>(
        &'a self,
        context: &'a Context,
        known: Option<Digest>,
    ) -> Pending<'a, Result<Generation, Failure>> {
        Box::pin(async move {
            let route = Arc::clone(&context.route);
            let mut run = self.begin(route).await;
            let (meter, wall) = (run.meter(), run.wall());
            let work = self.produce(&mut run, context, known);
            let ended = meter.run(wall, work).await;
            let ((outcome, tags), cost) = run.end(ended).await.map_err(|failure| *failure)?;
            Ok(Generation {
                outcome,
                tags,
                cost,
            })
        })
    }

    fn shell<'a>(&'a self, context: &'a Context) -> Pending<'a, Result<Document, Failure>> {
        Box::pin(async move {
            if !self.exports.paths {
                let message = "the page exports no `wisr:page/paths@0.1.0`, so it has no shell";
                return Err(Failure::new(FailureKind::Invalid, "shell", message));
            }
            let route = Arc::clone(&context.route);
            let mut run = self.begin(route).await;
            let (meter, wall) = (run.meter(), run.wall());
            let work = self.make_shell(&mut run, context);
            let ended = meter.run(wall, work).await;
            let ended = run.end(ended).await.map_err(|failure| *failure);
            ended.map(|(document, _)| document)
        })
    }

    fn static_paths(&self, route: Arc<str>) -> Pending<'_, Result<PathList, Failure>> {
        Box::pin(async move {
            if !self.exports.paths {
                return Ok(PathList {
                    paths: Vec::new(),
                    fallback: Fallback::Blocking,
                });
            }
            let run = self
                .grants
                .begin(&self.module, route, LISTING_BYTES, Purpose::Trial);
            let mut run = run.await;
            let (meter, wall) = (run.meter(), run.wall());
            let work = self.list(&mut run);
            let ended = meter.run(wall, work).await;
            let ended = run.end(ended).await.map_err(|failure| *failure);
            ended.map(|(paths, _)| paths)
        })
    }
}
