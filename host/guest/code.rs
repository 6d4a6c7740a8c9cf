//! `Code`: a module's native code, with what it exports, ready to be instantiated.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::{Component, InstancePre};
use wasmtime_wasi_http::p2::bindings::exports::wasi::http::incoming_handler;

use super::bindings::exports::wisr::page::{page, paths};
use super::module::{ApiExports, LoadError, PageExports, Role};
use super::runtime::Runtime;
use super::sandbox::State;
use super::symbols::DebugInfo;
use super::trap::{brief, story};

/// A component in native code.
pub(super) struct Native {
    pub(super) component: Component,
    /// What it was made for.
    pub(super) runtime: Arc<Runtime>,
    /// Bytes of code.
    pub(super) size: u64,
    /// How long compiling took, unless it had been kept.
    pub(super) time: Option<Duration>,
    pub(super) debug: DebugInfo,
}

/// The code of one module, made by one compiler. A run keeps the code that it began with.
pub(super) struct Code {
    pub(super) instance: InstancePre<State>,
    pub(super) runtime: Arc<Runtime>,
    pub(super) size: u64,
    pub(super) time: Option<Duration>,
    pub(super) debug: DebugInfo,
    exports: Exports,
}

/// Where the functions of a module are in its code.
enum Exports {
    Page(page::GuestIndices, Option<paths::GuestIndices>),
    Api(incoming_handler::GuestIndices),
}

impl Code {
    /// Everything from native code to the first instance; blocks.
    pub(super) fn prepare(native: Native) -> Result<(Self, Facts), LoadError> {
        let Native {
            component,
            runtime,
            size,
            time,
            debug,
        } = native;
        // The first instance should not have to make the memory image that all others share.
        component
            .initialize_copy_on_write_image()
            .map_err(|error| LoadError::NeedsTooMuch(story(&error)))?;
        let kinds = component.component_type();
        let exports: Vec<&str> = kinds
            .exports(&runtime.engine)
            .map(|(name, _)| name)
            .collect();
        let imports = kinds.imports(&runtime.engine);
        let imports = imports.map(|(name, _)| name.to_owned()).collect();
        let contract = Contract::of(&exports)?;
        let instance = runtime
            .linker
            .instantiate_pre(&component)
            .map_err(|error| LoadError::MissingImport(story(&error)))?;
        let exports = contract
            .find(&component, &instance)
            .map_err(|error| LoadError::WrongTypes(story(&error)))?;
        let facts = Facts {
            role: exports.role(),
            imports,
        };
        let code = Self {
            instance,
            runtime,
            size,
            time,
            debug,
            exports,
        };
        Ok((code, facts))
    }

    /// The functions of a page.
    pub(super) fn page(&self) -> wasmtime::Result<&page::GuestIndices> {
        match &self.exports {
            Exports::Page(page, _) => Ok(page),
            Exports::Api(_) => Err(wasmtime::Error::msg("the module is no page")),
        }
    }

    /// The functions of a page that lists its paths.
    pub(super) fn paths(&self) -> wasmtime::Result<&paths::GuestIndices> {
        match &self.exports {
            Exports::Page(_, Some(paths)) => Ok(paths),
            _ => Err(wasmtime::Error::msg("the module lists no paths")),
        }
    }

    /// The function of an API route.
    pub(super) fn handler(&self) -> wasmtime::Result<&incoming_handler::GuestIndices> {
        match &self.exports {
            Exports::Api(handler) => Ok(handler),
            Exports::Page(..) => Err(wasmtime::Error::msg("the module is no API route")),
        }
    }
}

/// What any code of a module says of the module.
pub(super) struct Facts {
    pub(super) role: Role,
    /// The names of the interfaces that it imports.
    pub(super) imports: Vec<String>,
}

impl Exports {
    fn role(&self) -> Role {
        match self {
            Exports::Page(_, paths) => Role::Page(PageExports {
                paths: paths.is_some(),
            }),
            Exports::Api(_) => Role::Api(ApiExports(())),
        }
    }
}

/// The interface that every page exports.
const PAGE: &str = "wisr:page/page@0.1.0";

/// The interface that a page with a dynamic route may export.
const PATHS: &str = "wisr:page/paths@0.1.0";

/// The interface that every API route exports, in any of its compatible versions.
const API: &str = "wasi:http/incoming-handler@0.2.";

/// Which contract a module means to keep, before its types are compared.
enum Contract {
    Page,
    Api,
}

impl Contract {
    /// A page that can also answer requests is a page: that contract is ours.
    fn of(exports: &[&str]) -> Result<Self, LoadError> {
        if exports.contains(&PAGE) {
            Ok(Contract::Page)
        } else if exports.iter().any(|name| name.starts_with(API)) {
            Ok(Contract::Api)
        } else {
            Err(LoadError::NoRole(listed(exports)))
        }
    }

    fn find(
        self,
        component: &Component,
        instance: &InstancePre<State>,
    ) -> wasmtime::Result<Exports> {
        Ok(match self {
            Contract::Page => {
                let paths = component
                    .get_export_index(None, PATHS)
                    .map(|_| paths::GuestIndices::new(instance))
                    .transpose()?;
                Exports::Page(page::GuestIndices::new(instance)?, paths)
            }
            Contract::Api => Exports::Api(incoming_handler::GuestIndices::new(instance)?),
        })
    }
}

fn listed(names: &[&str]) -> String {
    match names {
        [] => "nothing".to_owned(),
        names => brief(&names.join(", ")),
    }
}
