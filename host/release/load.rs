//! `Loader`: makes a route of a file, or says why it is none.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::guest::outbound;
use crate::guest::{ApiGuest, Engine, Grants, Guest, LoadError, Module, PageExports, Role};
use crate::page::{Digest, Page, Render};
use crate::route::Pattern;
use crate::telemetry::metrics::{Metrics, Outcome};
use crate::telemetry::{Clock, Incidents};

use super::api::ApiRouted;
use super::archive::{Archive, ModuleError, Unkept};
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
    pub(super) metrics: Arc<Metrics>,
    /// Told of modules that do nothing but fail.
    pub(super) fallen: Arc<Notify>,
    /// Where modules are kept; without one they are held in memory.
    pub(super) archive: Option<Arc<Archive>>,
    /// Why the latest module that could not be kept was not.
    pub(super) unkept: Mutex<Option<Unkept>>,
}

/// What is known of a file before it is loaded.
#[derive(Clone, Default)]
pub(super) struct Before {
    /// What it has been loaded as.
    pub(super) route: Option<Route>,
    /// The version of it that is not to be tried.
    pub(super) fallen: Option<Digest>,
    /// The version of it that was refused.
    pub(super) refused: Option<Mark>,
}

/// What became of a file.
pub(super) enum Loaded {
    /// A new module for its route.
    New(Route),
    /// It is the module that the route has, by this digest.
    Same(Digest),
    /// It is the module that did nothing but fail.
    Fallen,
    /// It is not there any more.
    Gone,
    /// It changed or vanished while it was read.
    Moving,
    /// It is no module for this route.
    Refused { message: String, retry: Retry },
}

/// Why a module of an earlier release cannot serve again.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    /// No state folder, and no longer in memory.
    #[error("it was kept in memory only, and is not there any more")]
    NotKept,
    /// Its bytes are not there.
    #[error(transparent)]
    Bytes(#[from] ModuleError),
    /// Its bytes are there, and this wisr cannot use them.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It is no module for its place.
    #[error("{0}")]
    Misplaced(&'static str),
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

const PAGE_IN_API: &str = "it is a page (it exports `wisr:page/page`), and `/api` is for API routes \
                           (which export `wasi:http/incoming-handler`): move it out of `api/`";

const API_OUTSIDE: &str = "it is an API route (it exports `wasi:http/incoming-handler`), and these \
                           are served below `/api` only: move it into `api/`";

/// Why a module of this role is none for the place of `pattern`, if it is none.
pub fn misplaced(role: &Role, pattern: &Pattern) -> Option<&'static str> {
    match (role, pattern.is_api()) {
        (Role::Page(_), true) => Some(PAGE_IN_API),
        (Role::Api(_), false) => Some(API_OUTSIDE),
        (Role::Page(_), false) | (Role::Api(_), true) => None,
    }
}

impl Loader {
    /// Reads and loads a file, unless it is what it was `before`.
    pub(super) async fn load(&self, file: &Path, found: Found, before: Before) -> Loaded {
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
        let digest = Digest::of(&bytes);
        if before.fallen == Some(digest) {
            return Loaded::Fallen;
        }
        let (before, refused) = (before.route, before.refused);
        if before.as_ref().is_some_and(|held| held.digest() == digest) {
            return Loaded::Same(digest);
        }
        let is_retry = refused == Some(found.mark);
        match self.make(file, found.pattern, bytes, is_retry).await {
            Ok(route) => {
                if let (Route::Page(new), Some(Route::Page(old))) = (&route, &before) {
                    // One that cannot list its paths has not said that any path is a page.
                    new.listing.follow(&old.listing);
                }
                Loaded::New(route)
            }
            Err(lost) => Loaded::Refused {
                retry: match lost {
                    Lost::Load(ref error) if error.may_pass_later() => Retry::Later,
                    _ => Retry::Never,
                },
                message: lost.to_string(),
            },
        }
    }

    /// Makes the route of `file` of a module that it once was.
    ///
    /// # Errors
    /// [`Lost`].
    pub(super) async fn restore(&self, file: &Path, digest: Digest) -> Result<Route, Lost> {
        // The table of that time gave it a place.
        let pattern =
            Pattern::of_file(file).map_err(|_| Lost::Misplaced("its name is no route"))?;
        let (path, archive) = (self.config.pages.join(file), self.archive.clone());
        let reading = move || {
            let kept = archive.map_or(Err(Lost::NotKept), |archive| {
                archive.module(digest).map_err(Lost::from)
            });
            // Its file may be as it was.
            kept.or_else(|lost| reread(&path, digest).ok_or(lost))
        };
        let reading = tokio::task::spawn_blocking(reading).await;
        let bytes = reading.unwrap_or(Err(Lost::NotKept))?;
        self.make(file, pattern, bytes, false).await
    }

    /// Loads a module, keeps its bytes and makes a route of it.
    async fn make(
        &self,
        file: &Path,
        pattern: Pattern,
        bytes: Vec<u8>,
        is_retry: bool,
    ) -> Result<Route, Lost> {
        let kept = self.archive.clone().map(|archive| (archive, bytes.clone()));
        let module = match is_retry {
            true => self.measured(self.engine.load_again(bytes)).await?,
            false => self.measured(self.engine.load(bytes)).await?,
        };
        let digest = module.digest();
        let route = self.route(file, pattern, module)?;
        if let Some((archive, bytes)) = kept {
            let keeping = move || archive.keep_module(digest, &bytes);
            // What is not kept is served all the same.
            if let Ok(Err(unkept)) = tokio::task::spawn_blocking(keeping).await {
                *self.unkept.lock() = Some(unkept);
            }
        }
        Ok(route)
    }

    async fn measured<T, E>(&self, load: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let began = Instant::now();
        let loaded = load.await;
        let outcome = if loaded.is_ok() { "ok" } else { "failed" };
        let family = &self.metrics.module_load_seconds;
        let histogram = family.get_or_create_owned(&Outcome { outcome });
        histogram.observe(began.elapsed().as_secs_f64());
        loaded
    }

    /// Modules for pages and for API routes have places of their own, so that neither can take the
    /// other's and an address tells what answers there.
    fn route(&self, file: &Path, pattern: Pattern, module: Arc<Module>) -> Result<Route, Lost> {
        Ok(match (*module.role(), pattern.is_api()) {
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
            (Role::Page(_), true) => return Err(Lost::Misplaced(PAGE_IN_API)),
            (Role::Api(_), false) => return Err(Lost::Misplaced(API_OUTSIDE)),
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
            may_revalidate: config.may_revalidate,
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
                config.paths_revalidate,
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

/// What the file holds at the moment; none if it is no whole file.
pub(super) fn digest_of(path: &Path) -> Option<Digest> {
    let seen = Mark::of(&fs::metadata(path).ok().filter(fs::Metadata::is_file)?);
    Some(Digest::of(&read(path, &seen).ok()??))
}

/// The file's bytes, if they are those of `digest`.
fn reread(path: &Path, digest: Digest) -> Option<Vec<u8>> {
    let seen = Mark::of(&fs::metadata(path).ok().filter(fs::Metadata::is_file)?);
    let bytes = read(path, &seen).ok()??;
    (Digest::of(&bytes) == digest).then_some(bytes)
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
