//! `first_start`: code made runnable, its types compared, its start functions run.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::Instance;

use super::super::artifact::Compiled;
use super::super::code::{Code, Native};
use super::super::engine::{Engine, Purpose};
use super::super::limits::{CALL_BYTES, DRY_RUN};
use super::super::module::{LoadError, PageExports, Role};
use super::super::run::{Order, Run};
use super::super::runtime::Runtime;
use super::super::sandbox::State;
use super::super::trap::{Stop, story};
use super::Refusal;
use crate::page::{Cost, Digest};

/// Everything that a module goes through before its first page.
pub(super) async fn first_start(
    engine: &Engine,
    compiled: &Compiled,
    runtime: &Arc<Runtime>,
    module: Digest,
) -> Result<Cost, Refusal> {
    let native = Native::open(compiled, Arc::clone(runtime), None).map_err(Refusal::of)?;
    let (code, facts) = Code::prepare(native).map_err(Refusal::of)?;
    let (code, role) = (Arc::new(code), facts.role);
    let order = Order {
        engine,
        code: Arc::clone(&code),
        module,
        limits: &DRY_RUN,
        route: Arc::from(module.short()),
        settings: Arc::default(),
        bound: CALL_BYTES,
        purpose: Purpose::Trial,
    };
    let mut run = order.start(|_| None).await;
    let (meter, wall) = (run.meter(), run.wall());
    let ended = meter.run(wall, check_types(&mut run, &code, role)).await;
    match run.close(ended) {
        Ok((checked, cost)) => checked.map(|()| cost),
        Err((failure, places)) => Err(Refusal::StartUp(failure, places)),
    }
}

impl Refusal {
    fn of(error: LoadError) -> Self {
        match error {
            LoadError::NoRole(words) => Refusal::NoRole(words),
            LoadError::WrongTypes(words) => Refusal::WrongTypes(words),
            LoadError::MissingImport(words) => Refusal::MissingImport(words),
            LoadError::NeedsTooMuch(words) => Refusal::NeedsTooMuch(words),
            other => Refusal::Unready(other.to_string()),
        }
    }
}

async fn check_types(
    run: &mut Run<'_>,
    code: &Code,
    role: Role,
) -> Result<Result<(), Refusal>, Stop> {
    let instance = run.instantiate().await?;
    let checked = compare(&mut run.sandbox.store, &instance, code, role);
    Ok(checked.map_err(|error| Refusal::WrongTypes(story(&error))))
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
