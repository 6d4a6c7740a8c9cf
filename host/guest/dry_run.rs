//! `dry_run`: a new module's first start, before any reader depends on it.

use std::sync::Arc;

use super::engine::{Engine, Purpose};
use super::limits::{CALL_BYTES, DRY_RUN};
use super::module::{ApiExports, LoadError, Module, PageExports, Role};
use super::run::{Order, Run};
use super::trap::{Stop, story};

/// Starts a module once, with nothing granted, to see that it starts and what its exports are:
/// wasmtime compares types only then.
///
/// # Errors
/// [`LoadError::WrongTypes`] or [`LoadError::StartUp`].
pub(super) async fn dry_run(engine: &Engine, module: &Module) -> Result<(), LoadError> {
    let order = Order {
        engine,
        module,
        limits: &DRY_RUN,
        route: Arc::from(module.digest().short()),
        settings: Arc::default(),
        bound: CALL_BYTES,
        purpose: Purpose::Trial,
    };
    let mut run = order.start(|_| None).await;
    let ended = run
        .meter()
        .run(DRY_RUN.wall, check_types(&mut run, module.role()))
        .await;
    match run.end(ended) {
        Ok((checked, _)) => checked,
        Err(failure) => Err(LoadError::StartUp(failure)),
    }
}

async fn check_types(run: &mut Run<'_>, role: &Role) -> Result<Result<(), LoadError>, Stop> {
    let instance = run.instantiate().await?;
    let store = &mut run.sandbox.store;
    let checked = match role {
        Role::Page(PageExports { page, paths }) => {
            page.load(&mut *store, &instance).and_then(|_| match paths {
                Some(paths) => paths.load(store, &instance).map(drop),
                None => Ok(()),
            })
        }
        Role::Api(ApiExports(handler)) => handler.load(store, &instance).map(drop),
    };
    Ok(checked.map_err(|error| LoadError::WrongTypes(story(&error))))
}
