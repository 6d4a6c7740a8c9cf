//! `Table`: finds the routes of a path, best first.

use std::collections::HashMap;

use super::path::{Path, Segments};
use super::pattern::{Pattern, Segment};

/// Routes, no two of which claim one place. At each segment a static route comes before `[id]`,
/// that before `[...slug]`, that before `[[...slug]]`.
pub struct Table<T> {
    entries: Vec<(Pattern, T)>,
    root: Node,
}

/// A route that matches a path.
pub struct Match<'a, T> {
    /// The route.
    pub pattern: &'a Pattern,
    /// What the table holds for it.
    pub value: &'a T,
}

/// Two routes that cannot be in one table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("route {refused} conflicts with {kept}: {}", rule.as_str())]
pub struct Conflict {
    /// The route that was not inserted.
    pub refused: Pattern,
    /// The route that is in the table.
    pub kept: Pattern,
    /// What both together break.
    pub rule: Rule,
}

/// What two routes together break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Both are the same route.
    Same,
    /// Their parameters at one place have different names.
    Names,
    /// A catch-all and an optional one at one place.
    CatchAlls,
    /// A route and an optional catch-all that matches it too.
    Optional,
}

/// What may follow one prefix of the routes. Routes are indexes into the table's entries.
#[derive(Default)]
struct Node {
    statics: HashMap<String, Node>,
    one: Option<Box<One>>,
    many: Option<usize>,
    any: Option<usize>,
    end: Option<usize>,
}

/// `[id]` at one place.
struct One {
    name: String,
    /// The route that brought the name.
    route: usize,
    next: Node,
}

/// What is still to be tried: a node with the segments that are left, or a route.
enum Step<'a, 'p> {
    Into(&'a Node, Segments<'p>),
    Found(usize),
}

impl Rule {
    /// The rule, and what to do about it.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Same => "both are one route; remove one of the files",
            Rule::Names => {
                "parameters at one place have one name; rename the files or folders to agree"
            }
            Rule::CatchAlls => {
                "[...name] and [[...name]] at one place match the same paths; remove one"
            }
            Rule::Optional => "[[...name]] matches its folder's own path too; write [...name]",
        }
    }
}

impl<T> Table<T> {
    /// A table without routes.
    pub fn new() -> Self {
        Self {
            entries: Vec::new(),
            root: Node::default(),
        }
    }

    /// Adds a route.
    ///
    /// # Errors
    /// When a route of the table claims the same place; the table is then as it was.
    pub fn insert(&mut self, pattern: Pattern, value: T) -> Result<(), Conflict> {
        if let Some((kept, rule)) = self.root.conflict(pattern.segments()) {
            return Err(Conflict {
                refused: pattern,
                kept: self.entries[kept].0.clone(),
                rule,
            });
        }
        self.root.insert(pattern.segments(), self.entries.len());
        self.entries.push((pattern, value));
        Ok(())
    }

    /// What the table holds for the route that claims the place of `pattern`, if one does.
    pub fn rival(&self, pattern: &Pattern) -> Option<&T> {
        let (kept, _) = self.root.conflict(pattern.segments())?;
        Some(&self.entries[kept].1)
    }

    /// The routes that match a path, best first: the next one is for when the one before turns out
    /// not to have the page.
    pub fn matches<'a>(&'a self, path: &Path) -> impl Iterator<Item = Match<'a, T>> {
        let mut steps = vec![Step::Into(&self.root, path.segments())];
        std::iter::from_fn(move || {
            loop {
                match steps.pop()? {
                    Step::Into(node, rest) => node.expand(rest, &mut steps),
                    Step::Found(route) => {
                        let (pattern, value) = &self.entries[route];
                        return Some(Match { pattern, value });
                    }
                }
            }
        })
    }

    /// All routes, in the order of insertion.
    pub fn iter(&self) -> impl Iterator<Item = (&Pattern, &T)> {
        self.entries.iter().map(|(pattern, value)| (pattern, value))
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no routes.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl Node {
    /// The route, if any, that a route with these segments cannot stand beside.
    fn conflict(&self, segments: &[Segment]) -> Option<(usize, Rule)> {
        let claimed = |route: Option<usize>, rule| Some((route?, rule));
        let Some((first, rest)) = segments.split_first() else {
            return claimed(self.end, Rule::Same).or(claimed(self.any, Rule::Optional));
        };
        match first {
            Segment::Static(text) => self.statics.get(text)?.conflict(rest),
            Segment::One(name) => {
                let one = self.one.as_ref()?;
                if one.name == *name {
                    one.next.conflict(rest)
                } else {
                    Some((one.route, Rule::Names))
                }
            }
            Segment::Many(_) => {
                claimed(self.many, Rule::Same).or(claimed(self.any, Rule::CatchAlls))
            }
            Segment::Any(_) => claimed(self.any, Rule::Same)
                .or(claimed(self.many, Rule::CatchAlls))
                .or(claimed(self.end, Rule::Optional)),
        }
    }

    fn insert(&mut self, segments: &[Segment], route: usize) {
        let Some((first, rest)) = segments.split_first() else {
            self.end = Some(route);
            return;
        };
        match first {
            Segment::Static(text) => self
                .statics
                .entry(text.clone())
                .or_default()
                .insert(rest, route),
            Segment::One(name) => {
                let one = self.one.get_or_insert_with(|| {
                    Box::new(One {
                        name: name.clone(),
                        route,
                        next: Node::default(),
                    })
                });
                one.next.insert(rest, route);
            }
            Segment::Many(_) => self.many = Some(route),
            Segment::Any(_) => self.any = Some(route),
        }
    }

    /// Puts what follows on the stack of steps, the best on top.
    fn expand<'a, 'p>(&'a self, mut path: Segments<'p>, steps: &mut Vec<Step<'a, 'p>>) {
        steps.extend(self.any.map(Step::Found));
        let Some(segment) = path.next() else {
            steps.extend(self.end.map(Step::Found));
            return;
        };
        steps.extend(self.many.map(Step::Found));
        let one = self.one.as_ref().map(|one| &one.next);
        let fixed = self.statics.get(segment);
        steps.extend(one.map(|node| Step::Into(node, path.clone())));
        steps.extend(fixed.map(|node| Step::Into(node, path)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(routes: &[&str]) -> Table<()> {
        let mut table = Table::new();
        for route in routes {
            table.insert(Pattern::parse(route).unwrap(), ()).unwrap();
        }
        table
    }

    fn found(table: &Table<()>, path: &str) -> Vec<String> {
        let path = Path::parse(path).unwrap();
        let matches = table.matches(&path);
        matches.map(|found| found.pattern.to_string()).collect()
    }

    #[test]
    fn the_most_specific_route_comes_first() {
        let table = table(&[
            "/[[...all]]",
            "/posts",
            "/posts/[id]",
            "/posts/new",
            "/posts/[id]/edit",
            "/posts/[...rest]",
            "/[section]/new",
        ]);
        let new = [
            "/posts/new",
            "/posts/[id]",
            "/posts/[...rest]",
            "/[section]/new",
            "/[[...all]]",
        ];
        assert_eq!(found(&table, "/posts/new"), new);
        // The static branch is a dead end here, so the search comes back out of it.
        let edit = ["/posts/[id]/edit", "/posts/[...rest]", "/[[...all]]"];
        assert_eq!(found(&table, "/posts/new/edit"), edit);
        assert_eq!(found(&table, "/"), ["/[[...all]]"]);
        assert_eq!(found(&table, "/posts"), ["/posts", "/[[...all]]"]);
        assert_eq!(found(&table, "/Posts"), ["/[[...all]]"]);
        assert_eq!(found(&table, "/p%6Fsts"), ["/posts", "/[[...all]]"]);
    }

    #[test]
    fn params_are_decoded_within_their_segment() {
        let table = table(&["/[a]/x/[...b]", "/y/[[...c]]"]);
        let params = |path: &str| {
            let path = Path::parse(path).unwrap();
            let params = table
                .matches(&path)
                .next()
                .unwrap()
                .pattern
                .params_of(&path);
            let shown = params
                .iter()
                .map(|param| format!("{}={}", param.name, param.values.join("|")));
            shown.collect::<Vec<_>>()
        };
        assert_eq!(params("/%2F/x/1/%C3%A9"), ["a=/", "b=1|é"]);
        assert_eq!(params("/y"), ["c="]);
        assert_eq!(params("/y/1/2"), ["c=1|2"]);
    }

    #[test]
    fn conflicts_name_both_routes_and_change_nothing() {
        for (kept, refused, rule) in [
            ("/x", "/x", Rule::Same),
            ("/[a]/x", "/[b]/y", Rule::Names),
            ("/[...a]", "/[...b]", Rule::Same),
            ("/[...a]", "/[[...b]]", Rule::CatchAlls),
            ("/[[...b]]", "/[...a]", Rule::CatchAlls),
            ("/x", "/x/[[...s]]", Rule::Optional),
            ("/x/[[...s]]", "/x", Rule::Optional),
        ] {
            let mut table = table(&[kept]);
            let conflict = table
                .insert(Pattern::parse(refused).unwrap(), ())
                .unwrap_err();
            assert_eq!(conflict.rule, rule, "{conflict}");
            assert!(
                conflict
                    .to_string()
                    .starts_with(&format!("route {refused} conflicts with {kept}:"))
            );
            assert_eq!(table.len(), 1);
        }
        let mut table = table(&["/[a]/x"]);
        table
            .insert(Pattern::parse("/[b]/y/[z]").unwrap(), ())
            .unwrap_err();
        table
            .insert(Pattern::parse("/[a]/y/[w]").unwrap(), ())
            .unwrap();
        assert_eq!(found(&table, "/1/y/2"), ["/[a]/y/[w]"]);
    }

    fn rank(segment: &Segment) -> u8 {
        match segment {
            Segment::Static(_) => 0,
            Segment::One(_) => 1,
            Segment::Many(_) => 2,
            Segment::Any(_) => 3,
        }
    }

    fn matches_naively(pattern: &[Segment], path: &[&str]) -> bool {
        match (pattern, path) {
            ([], []) => true,
            ([Segment::Any(_)], _) => true,
            ([Segment::Many(_)], path) => !path.is_empty(),
            ([Segment::Static(text), pattern @ ..], [first, path @ ..]) => {
                text == first && matches_naively(pattern, path)
            }
            ([Segment::One(_), pattern @ ..], [_, path @ ..]) => matches_naively(pattern, path),
            _ => false,
        }
    }

    fn conflict_naively(one: &[Segment], two: &[Segment]) -> bool {
        match (one, two) {
            ([], []) | ([], [Segment::Any(_)]) | ([Segment::Any(_)], []) => true,
            ([a, one @ ..], [b, two @ ..]) => match (a, b) {
                (Segment::Many(_) | Segment::Any(_), Segment::Many(_) | Segment::Any(_)) => true,
                (Segment::One(a), Segment::One(b)) => a != b || conflict_naively(one, two),
                _ => a == b && conflict_naively(one, two),
            },
            _ => false,
        }
    }

    fn route() -> impl Strategy<Value = Pattern> {
        let middle = prop::sample::select(vec!["a", "b", "[x]", "[y]", "[z]"]);
        let last = prop::sample::select(vec!["", "", "/[...r]", "/[...s]", "/[[...r]]"]);
        (prop::collection::vec(middle, 0..4), last).prop_filter_map(
            "a rule is broken",
            |(middle, last)| {
                let text = format!(
                    "{}{last}",
                    middle
                        .iter()
                        .map(|part| format!("/{part}"))
                        .collect::<String>()
                );
                Pattern::parse(if text.is_empty() { "/" } else { &text }).ok()
            },
        )
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_the_model(
            routes in prop::collection::vec(route(), 0..24),
            paths in prop::collection::vec(prop::collection::vec("[abc]", 0..5), 1..12),
        ) {
            let mut table = Table::new();
            let mut kept: Vec<Pattern> = Vec::new();
            for route in routes {
                let clash = kept.iter().any(|other| conflict_naively(other.segments(), route.segments()));
                prop_assert_eq!(table.insert(route.clone(), ()).is_err(), clash, "{:?} into {:?}", route, kept);
                if !clash {
                    kept.push(route);
                }
            }
            for path in paths {
                let segments: Vec<&str> = path.iter().map(String::as_str).collect();
                let mut expected: Vec<&Pattern> =
                    kept.iter().filter(|route| matches_naively(route.segments(), &segments)).collect();
                expected.sort_by_key(|route| route.segments().iter().map(rank).collect::<Vec<_>>());
                let path = Path::of_segments(path.clone());
                let found: Vec<&Pattern> = table.matches(&path).map(|found| found.pattern).collect();
                prop_assert_eq!(&found, &expected);
                for found in table.matches(&path) {
                    let params = found.pattern.params_of(&path);
                    prop_assert_eq!(found.pattern.path_of(&params), Ok(path.clone()));
                }
            }
        }
    }
}
