//! `Pattern`: which paths a module renders, read from its place in the folder.

use std::fmt;
use std::path::Component;
use std::sync::Arc;

use crate::page::Param;

use super::path::{MAX_SEGMENTS, Path};

/// A route: `/posts/[id]`. Static segments are plain text, not escaped: they match decoded ones.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern {
    text: Arc<str>,
    segments: Vec<Segment>,
}

/// One segment of a pattern, in the order in which they are tried.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Segment {
    /// Exactly this text.
    Static(String),
    /// `[id]`: one segment.
    One(String),
    /// `[...slug]`: one segment or more; always last.
    Many(String),
    /// `[[...slug]]`: any number of segments; always last.
    Any(String),
}

/// Why a text or a file name is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It does not begin with a slash.
    #[error("route {0:?}: a route begins with `/`")]
    Relative(String),
    /// A segment that no request can have.
    #[error("route {0}: {1:?} cannot be a part of a path; give the file or folder another name")]
    Unreachable(String, String),
    /// Brackets that are not one of the four forms.
    #[error(
        "route {0}: {1:?} is not a parameter; write [name], [...name] or [[...name]], as a whole \
         segment, the name made of letters, digits, `_` and `-`"
    )]
    Brackets(String, String),
    /// A name that stands twice in one path.
    #[error("route {0}: the parameter {1:?} stands twice; give each its own name")]
    Twice(String, String),
    /// Something follows a catch-all.
    #[error("route {0}: {1} takes all that follows, so nothing can stand after it")]
    NotLast(String, String),
    /// More than [`MAX_SEGMENTS`].
    #[error("route {0}: a route has at most {MAX_SEGMENTS} segments")]
    TooLong(String),
    /// A file that is not the name of a module.
    #[error("{0:?} is not the name of a page module, which ends in `.wasm` and is UTF-8")]
    NotAModule(String),
}

/// Why parameters do not make a path of a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamsError {
    /// A parameter of the route is not given.
    #[error("route {0} needs the parameter {1:?}")]
    Missing(Arc<str>, String),
    /// A parameter is given that the route does not have, or has once.
    #[error("route {0} has no parameter {1:?}, or it is given twice")]
    Unknown(Arc<str>, String),
    /// One value is needed, or at least one.
    #[error(
        "route {0}: the parameter {1:?} has {2} values; [name] has one, [...name] at least one"
    )]
    Arity(Arc<str>, String, usize),
    /// A value that no request can have.
    #[error(
        "route {0}: the parameter {1:?} is {2:?}; a part of a path is neither empty nor `.` nor `..` \
         and has no NUL"
    )]
    Value(Arc<str>, String, String),
    /// More than [`MAX_SEGMENTS`].
    #[error("route {0}: a path has at most {MAX_SEGMENTS} segments, this one has {1}")]
    TooLong(Arc<str>, usize),
}

impl Pattern {
    /// Reads a route: `/posts/[id]`.
    ///
    /// # Errors
    /// When it breaks a rule of the grammar.
    pub fn parse(route: &str) -> Result<Self, PatternError> {
        let Some(rest) = route.strip_prefix('/') else {
            return Err(PatternError::Relative(route.to_owned()));
        };
        let mut segments: Vec<Segment> = Vec::new();
        let texts = rest.split('/').filter(|_| !rest.is_empty());
        for text in texts {
            let segment = Segment::parse(route, text)?;
            match segments.last() {
                Some(last @ (Segment::Many(_) | Segment::Any(_))) => {
                    return Err(PatternError::NotLast(route.to_owned(), last.to_string()));
                }
                _ if segments.len() == MAX_SEGMENTS => {
                    return Err(PatternError::TooLong(route.to_owned()));
                }
                _ => {}
            }
            let name = segment.name();
            if name.is_some() && segments.iter().any(|earlier| earlier.name() == name) {
                let name = name.unwrap_or_default().to_owned();
                return Err(PatternError::Twice(route.to_owned(), name));
            }
            segments.push(segment);
        }
        Ok(Self {
            text: Arc::from(route),
            segments,
        })
    }

    /// Reads the place of a module, relative to the folder: `posts/[id].wasm`, `posts/index.wasm`.
    ///
    /// # Errors
    /// When it is not a module's name or breaks a rule of the grammar.
    pub fn of_file(relative: &std::path::Path) -> Result<Self, PatternError> {
        let refuse = || PatternError::NotAModule(relative.display().to_string());
        let mut names = Vec::new();
        for component in relative.components() {
            let Component::Normal(name) = component else {
                return Err(refuse());
            };
            names.push(name.to_str().ok_or_else(refuse)?);
        }
        let last = names.pop().and_then(|name| name.strip_suffix(".wasm"));
        match last.ok_or_else(refuse)? {
            "index" => {}
            name => names.push(name),
        }
        Self::parse(&format!("/{}", names.join("/")))
    }

    /// The route as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The route as shared text.
    pub fn route(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }

    /// Whether it stands for more than one path.
    pub fn is_dynamic(&self) -> bool {
        self.segments.iter().any(|segment| segment.name().is_some())
    }

    /// Whether it is `/api` or below it, where modules answer requests themselves.
    pub fn is_api(&self) -> bool {
        matches!(self.segments.first(), Some(Segment::Static(text)) if text == "api")
    }

    /// Whether some path is of both.
    pub fn meets(&self, other: &Self) -> bool {
        fn meet(one: &[Segment], other: &[Segment]) -> bool {
            match (one, other) {
                ([], []) | ([Segment::Any(_)], _) | (_, [Segment::Any(_)]) => true,
                ([], _) | (_, []) => false,
                ([Segment::Many(_)], _) | (_, [Segment::Many(_)]) => true,
                ([Segment::Static(one), ..], [Segment::Static(other), ..]) if one != other => false,
                ([_, one @ ..], [_, other @ ..]) => meet(one, other),
            }
        }
        meet(&self.segments, &other.segments)
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The path that these parameters, as `static-paths` gives them, stand for. An optional
    /// catch-all may be left out.
    ///
    /// # Errors
    /// When a name, a number of values or a value does not fit.
    pub fn path_of(&self, params: &[Param]) -> Result<Path, ParamsError> {
        let mut unused: Vec<&Param> = params.iter().collect();
        let mut path = Vec::new();
        for segment in &self.segments {
            let Some(name) = segment.name() else {
                path.push(segment.to_string());
                continue;
            };
            let given = unused.iter().position(|param| param.name == name);
            let values = match given {
                Some(index) => unused.swap_remove(index).values.as_slice(),
                None if matches!(segment, Segment::Any(_)) => &[],
                None => return Err(ParamsError::Missing(self.route(), name.to_owned())),
            };
            self.check(segment, name, values)?;
            path.extend_from_slice(values);
        }
        if let Some(param) = unused.first() {
            return Err(ParamsError::Unknown(self.route(), clipped(&param.name)));
        }
        if path.len() > MAX_SEGMENTS {
            return Err(ParamsError::TooLong(self.route(), path.len()));
        }
        Ok(Path::of_segments(path))
    }

    fn check(&self, segment: &Segment, name: &str, values: &[String]) -> Result<(), ParamsError> {
        let fits = match segment {
            Segment::One(_) => values.len() == 1,
            Segment::Many(_) => !values.is_empty(),
            Segment::Any(_) | Segment::Static(_) => true,
        };
        if !fits {
            return Err(ParamsError::Arity(
                self.route(),
                name.to_owned(),
                values.len(),
            ));
        }
        match values.iter().find(|value| !is_reachable(value)) {
            Some(value) => Err(ParamsError::Value(
                self.route(),
                name.to_owned(),
                clipped(value),
            )),
            None => Ok(()),
        }
    }

    /// The parameters of a path that this pattern matches.
    pub fn params_of(&self, path: &Path) -> Vec<Param> {
        let segments: Vec<&str> = path.segments().collect();
        self.params(&segments)
    }

    /// The parameters of a path that this pattern matches, given as its decoded segments.
    pub(super) fn params(&self, path: &[&str]) -> Vec<Param> {
        let owned = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
        let mut params = Vec::new();
        for (index, segment) in self.segments.iter().enumerate() {
            let (name, values) = match segment {
                Segment::Static(_) => continue,
                Segment::One(name) => (name, path.get(index..=index)),
                Segment::Many(name) | Segment::Any(name) => (name, path.get(index..)),
            };
            params.push(Param {
                name: name.clone(),
                values: owned(values.unwrap_or_default()),
            });
        }
        params
    }
}

impl Segment {
    fn parse(route: &str, text: &str) -> Result<Self, PatternError> {
        if !text.contains(['[', ']']) {
            return if is_reachable(text) {
                Ok(Segment::Static(text.to_owned()))
            } else {
                let (route, text) = (route.to_owned(), text.to_owned());
                Err(PatternError::Unreachable(route, text))
            };
        }
        let inside = |open: &str, close: &str| text.strip_prefix(open)?.strip_suffix(close);
        let (make, name): (fn(String) -> Segment, _) = if let Some(name) = inside("[[...", "]]") {
            (Segment::Any, name)
        } else if let Some(name) = inside("[...", "]") {
            (Segment::Many, name)
        } else {
            (Segment::One, inside("[", "]").unwrap_or_default())
        };
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.is_empty() || !name.bytes().all(is_word) {
            let (route, text) = (route.to_owned(), text.to_owned());
            return Err(PatternError::Brackets(route, text));
        }
        Ok(make(name.to_owned()))
    }

    fn name(&self) -> Option<&str> {
        match self {
            Segment::Static(_) => None,
            Segment::One(name) | Segment::Many(name) | Segment::Any(name) => Some(name),
        }
    }
}

/// Enough of what a module returned to recognise it; all of it may be megabytes.
fn clipped(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Whether a request can have this decoded segment.
fn is_reachable(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..") && !segment.contains('\0')
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Segment::Static(text) => f.write_str(text),
            Segment::One(name) => write!(f, "[{name}]"),
            Segment::Many(name) => write!(f, "[...{name}]"),
            Segment::Any(name) => write!(f, "[[...{name}]]"),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_file(file: &str) -> String {
        let pattern = Pattern::of_file(std::path::Path::new(file));
        pattern.map_or_else(|error| error.to_string(), |pattern| pattern.to_string())
    }

    #[test]
    fn patterns_meet_where_they_share_a_path() {
        for (one, other, expected) in [
            ("/", "/", true),
            ("/", "/[[...all]]", true),
            ("/", "/[...all]", false),
            ("/a", "/[...all]", true),
            ("/a/b", "/[id]", false),
            ("/a/b", "/[id]/b", true),
            ("/a/[x]", "/[y]/b", true),
            ("/a/[x]", "/b/[x]", false),
            ("/a/[[...x]]", "/[id]", true),
            ("/a/[...x]", "/a/[[...y]]", true),
        ] {
            let [one, other] = [one, other].map(|route| Pattern::parse(route).unwrap());
            assert_eq!(one.meets(&other), expected, "{one:?} {other:?}");
            assert_eq!(other.meets(&one), expected, "{other:?} {one:?}");
        }
    }

    fn params(given: &[(&str, &[&str])]) -> Vec<Param> {
        let param = |&(name, values): &(&str, &[&str])| Param {
            name: name.to_owned(),
            values: values.iter().map(|&value| value.to_owned()).collect(),
        };
        given.iter().map(param).collect()
    }

    #[test]
    fn a_file_stands_for_its_place() {
        assert_eq!(of_file("index.wasm"), "/");
        assert_eq!(of_file("posts/index.wasm"), "/posts");
        assert_eq!(of_file("posts/[id].wasm"), "/posts/[id]");
        assert_eq!(of_file("[lang]/index.wasm"), "/[lang]");
        assert_eq!(of_file("index/index.wasm"), "/index");
        assert_eq!(of_file("a.b.wasm"), "/a.b");
        for bad in ["posts.txt", "../x.wasm", "/x.wasm", "", "x/..wasm"] {
            assert!(
                Pattern::of_file(std::path::Path::new(bad)).is_err(),
                "{bad}"
            );
        }
        assert!(of_file("...wasm").contains("another name"));
    }

    #[test]
    fn the_grammar_has_four_forms_and_no_fifth() {
        for good in ["/", "/a", "/[a]/[b-1]", "/x/[...a]", "/[[...a_b]]"] {
            assert_eq!(Pattern::parse(good).unwrap().as_str(), good);
        }
        let bracketed =
            |route: &str| matches!(Pattern::parse(route), Err(PatternError::Brackets(..)));
        for bad in [
            "/[[id]]",
            "/[..id]",
            "/[....id]",
            "/[…id]",
            "/[id",
            "/id]",
            "/[[id]",
            "/[id]]",
            "/x[id]",
            "/[]",
            "/[...]",
            "/[[...]]",
            "/[[...a]",
            "/[...a]]",
            "/[a b]",
            "/[[]",
            "/[é]",
        ] {
            assert!(bracketed(bad), "{bad}: {:?}", Pattern::parse(bad));
        }
        let refused = |route: &str| Pattern::parse(route).unwrap_err().to_string();
        assert!(refused("/[a]/x/[a]").contains("twice"));
        assert!(refused("/[...a]/x").contains("[...a] takes all that follows"));
        assert!(refused("/[[...a]]/[b]").contains("takes all"));
        assert!(refused("x").contains("begins with"));
        assert!(refused("/a//b").contains("another name"));
        assert!(refused("/a/").contains("another name"));
        assert!(refused(&"/a".repeat(MAX_SEGMENTS + 1)).contains("at most"));
        assert!(Pattern::parse(&"/a".repeat(MAX_SEGMENTS)).is_ok());
    }

    #[test]
    fn listed_parameters_make_a_path() {
        let path = |route: &str, given: &[(&str, &[&str])]| {
            let made = Pattern::parse(route).unwrap().path_of(&params(given));
            made.map_or_else(|error| error.to_string(), |path| path.to_string())
        };
        assert_eq!(path("/p/[id]", &[("id", &["a/é"])]), "/p/a%2F%C3%A9");
        assert_eq!(path("/[a]/[b]", &[("b", &["2"]), ("a", &["1"])]), "/1/2");
        assert_eq!(path("/d/[...s]", &[("s", &["a", "b"])]), "/d/a/b");
        assert_eq!(path("/d/[[...s]]", &[]), "/d");
        assert_eq!(path("/[[...s]]", &[("s", &[])]), "/");
        assert!(path("/p/[id]", &[]).contains("needs the parameter \"id\""));
        assert!(path("/p/[id]", &[("id", &["1"]), ("x", &[])]).contains("no parameter \"x\""));
        assert!(path("/p/[id]", &[("id", &["1"]), ("id", &["2"])]).contains("given twice"));
        assert!(path("/p/[id]", &[("id", &["1", "2"])]).contains("has 2 values"));
        assert!(path("/d/[...s]", &[("s", &[])]).contains("has 0 values"));
        for unreachable in ["", ".", "..", "a\0"] {
            assert!(path("/p/[id]", &[("id", &[unreachable])]).contains("neither empty"));
        }
        let endless = "a\0".repeat(1 << 20);
        assert!(path("/p/[id]", &[("id", &[&endless])]).len() < 1_000);
        assert!(path("/p/[id]", &[("id", &["1"]), (&endless, &[])]).len() < 1_000);
        let long = vec!["a"; MAX_SEGMENTS + 1];
        assert!(path("/[...s]", &[("s", &long)]).contains("at most"));
    }
}
