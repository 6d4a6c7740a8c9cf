//! `dry_run`: a new module's first start, before any reader depends on it.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::Instance;

use super::code::Code;
use super::engine::{Engine, Purpose};
use super::limits::{CALL_BYTES, DRY_RUN};
use super::module::{LoadError, PageExports, Role};
use super::run::{Order, Run};
use super::sandbox::State;
use super::trap::{Stop, story};
use crate::page::{Cost, Digest};

/// Starts a module's code once, with nothing granted, to see that it starts and what its exports
/// are: wasmtime compares types only then. Returns what that took.
///
/// # Errors
/// [`LoadError::WrongTypes`] or [`LoadError::StartUp`].
pub(super) async fn dry_run(
    engine: &Engine,
    code: &Arc<Code>,
    role: Role,
    module: Digest,
) -> Result<Cost, LoadError> {
    let order = Order {
        engine,
        code: Arc::clone(code),
        module,
        limits: &DRY_RUN,
        route: Arc::from(module.short()),
        settings: Arc::default(),
        bound: CALL_BYTES,
        purpose: Purpose::Trial,
    };
    let mut run = order.start(|_| None).await;
    let (meter, wall) = (run.meter(), run.wall());
    let ended = meter.run(wall, check_types(&mut run, code, role)).await;
    match run.end(ended).await {
        Ok((checked, cost)) => checked.map(|()| cost),
        Err(failure) => Err(LoadError::StartUp(failure)),
    }
}

async fn check_types(
    run: &mut Run<'_>,
    code: &Code,
    role: Role,
) -> Result<Result<(), LoadError>, Stop> {
    let instance = run.instantiate().await?;
    let checked = compare(&mut run.sandbox.store, &instance, code, role);
    Ok(checked.map_err(|error| LoadError::WrongTypes(story(&error))))
}

fn compare(
    store: &mut Store<State>,
    instance: &Instance,
    code: &Code,
    role: Role,
) -> wasmtime::Result<()> {
    match role {
        Role::Page(PageExports { paths }) => {
            code.page()?.load(&mut *store, instance)?;
            if paths {
                code.paths()?.load(store, instance)?;
            }
        }
        Role::Api(_) => {
            code.handler()?.load(store, instance)?;
        }
    }
    Ok(())
}
