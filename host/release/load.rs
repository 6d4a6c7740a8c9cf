//! `Loader`: makes a route of a file, or says why it is none.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::guest::outbound;
use crate::guest::{ApiGuest, Engine, Grants, Guest, LoadError, Module, PageExports, Role};
use crate::page::{Digest, Page, Render};
use crate::route::Pattern;
use crate::telemetry::{Clock, Incidents};

use super::api::ApiRouted;
use super::folder::{Found, MODULE_BYTES, Mark};
use super::listing::Listing;
use super::releases::Config;
use super::routed::{Route, RouteConfig, RouteRules, Routed};
use super::trial::Trial;

/// What a route is made with.
pub(super) struct Loader {
    pub(super) config: Config,
    /// What is said of routes at the moment.
    pub(super) rules: RwLock<RouteRules>,
    pub(super) engine: Engine,
    pub(super) client: outbound::Client,
    pub(super) clock: Clock,
    pub(super) incidents: Arc<Incidents>,
    /// Told of modules that do nothing but fail.
    pub(super) fallen: Arc<Notify>,
}

/// What became of a file.
pub(super) enum Loaded {
    /// A new module for its route.
    New(Route),
    /// It is the module that the route has.
    Same,
    /// It changed or vanished while it was read.
    Moving,
    /// It is no module for this route.
    Refused { message: String, retry: Retry },
}

/// Whether a refused file may pass though nobody changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// The file itself is wrong.
    Never,
    /// The machine may have been short of time or memory.
    Later,
    /// The disk or the network was in the way.
    Soon,
}

impl Loader {
    /// Reads and loads a file, unless it is what `held` is made of.
    pub(super) async fn load(&self, file: &Path, found: Found, held: Option<&Route>) -> Loaded {
        let path = self.config.pages.join(file);
        let reading = tokio::task::spawn_blocking(move || read(&path, &found.mark)).await;
        let bytes = match reading.unwrap_or_else(|lost| Err(io::Error::other(lost))) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Loaded::Moving,
            Err(error) => {
                return Loaded::Refused {
                    message: format!("it cannot be read: {error}"),
                    retry: Retry::Soon,
                };
            }
        };
        if held.is_some_and(|held| held.module().digest() == Digest::of(&bytes)) {
            return Loaded::Same;
        }
        match self.engine.load(bytes).await {
            Ok(module) => self.route(file, found.pattern, module),
            Err(error) => Loaded::Refused {
                retry: match error {
                    LoadError::Compile(_) | LoadError::StartUp(_) => Retry::Later,
                    _ => Retry::Never,
                },
                message: error.to_string(),
            },
        }
    }

    /// Modules for pages and for API routes have places of their own, so that neither can take the
    /// other's and an address tells what answers there.
    fn route(&self, file: &Path, pattern: Pattern, module: Arc<Module>) -> Loaded {
        let misplaced = |message: &str| Loaded::Refused {
            message: message.to_owned(),
            retry: Retry::Never,
        };
        Loaded::New(match (module.role().clone(), pattern.is_api()) {
            (Role::Page(exports), false) => {
                Route::Page(Arc::new(self.page(file, pattern, module, exports)))
            }
            (Role::Api(exports), true) => {
                let config = self.rules(&pattern);
                let grants = self.grants(&config);
                Route::Api(Arc::new(ApiRouted {
                    file: PathBuf::from(file),
                    guest: ApiGuest::new(Arc::clone(&module), exports, grants),
                    module,
                    config,
                    pattern,
                    clock: self.clock,
                    incidents: Arc::clone(&self.incidents),
                }))
            }
            (Role::Page(_), true) => {
                return misplaced(
                    "it is a page (it exports `wisr:page/page`), and `/api` is for API routes \
                     (which export `wasi:http/incoming-handler`): move it out of `api/`",
                );
            }
            (Role::Api(_), false) => {
                return misplaced(
                    "it is an API route (it exports `wasi:http/incoming-handler`), and these are \
                     served below `/api` only: move it into `api/`",
                );
            }
        })
    }

    /// What is said of a route at the moment.
    pub(super) fn rules(&self, pattern: &Pattern) -> RouteConfig {
        let rules = Arc::clone(&self.rules.read());
        rules(pattern.as_str())
    }

    pub(super) fn grants(&self, config: &RouteConfig) -> Grants {
        Grants {
            engine: self.engine.clone(),
            limits: config.limits.clone(),
            outbound: Arc::clone(&config.outbound),
            client: self.client.clone(),
            settings: Arc::clone(&config.settings),
        }
    }

    fn page(
        &self,
        file: &Path,
        pattern: Pattern,
        module: Arc<Module>,
        exports: PageExports,
    ) -> Routed {
        let config = self.rules(&pattern);
        let guest = Guest::new(Arc::clone(&module), exports, self.grants(&config));
        let trial = Trial::new(Arc::new(guest), Arc::clone(&self.fallen));
        self.routed(file, pattern, module, config, trial)
    }

    /// A page's route; asks the module for its paths.
    pub(super) fn routed(
        &self,
        file: &Path,
        pattern: Pattern,
        module: Arc<Module>,
        config: RouteConfig,
        trial: Trial,
    ) -> Routed {
        let trial = Arc::new(trial);
        let renderer: Arc<dyn Render> = trial.clone();
        let listing = if pattern.is_dynamic() {
            let incidents = Arc::clone(&self.incidents);
            Listing::ask(
                Arc::clone(&renderer),
                pattern.clone(),
                self.clock,
                incidents,
            )
        } else {
            Listing::of_static()
        };
        Routed {
            page: Arc::new(Page {
                route: pattern.route(),
                renderer,
                policy: config.policy.clone(),
            }),
            file: PathBuf::from(file),
            module,
            config,
            pattern,
            listing,
            trial,
        }
    }
}

/// The file's bytes, if it is still the version that was seen when they have been read.
fn read(path: &Path, seen: &Mark) -> io::Result<Option<Vec<u8>>> {
    let attempt = || {
        let mut bytes = Vec::with_capacity(usize::try_from(seen.len).unwrap_or(0));
        // A file that grew past the limit meanwhile is not read to its end either.
        let file = fs::File::open(path)?;
        (&file).take(MODULE_BYTES + 1).read_to_end(&mut bytes)?;
        // Both: the name may have led elsewhere and back, and may lead elsewhere by now.
        let is_same =
            [file.metadata()?, fs::metadata(path)?].map(|now| Mark::of(&now)) == [*seen, *seen];
        Ok(is_same.then_some(bytes))
    };
    match attempt() {
        Err(error) if ErrorKind::NotFound == io::Error::kind(&error) => Ok(None),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_another_version_are_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wasm");
        fs::write(&path, b"one").unwrap();
        let seen = Mark::of(&fs::metadata(&path).unwrap());
        assert_eq!(read(&path, &seen).unwrap(), Some(b"one".to_vec()));
        fs::write(&path, b"three").unwrap();
        assert_eq!(read(&path, &seen).unwrap(), None);
        fs::remove_file(&path).unwrap();
        assert_eq!(read(&path, &seen).unwrap(), None);
    }
}
