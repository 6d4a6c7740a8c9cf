//! `Language`: what a new page is written in, and the page to begin with.

use clap::ValueEnum;

use super::place::{EXAMPLE, EXAMPLES, Kind, OTHER, Param, Place};
use crate::cli::build;

/// What a new page is written in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    /// Rust, built by cargo.
    #[default]
    Rust,
    /// JavaScript, needs Node.js to build.
    Js,
    /// TypeScript, needs Node.js to build.
    Ts,
    /// Python, needs Python to build.
    Python,
    /// C, needs clang and wasi-libc to build.
    C,
}

/// The template of a page with one path, and of one with parameters.
macro_rules! templates {
    ($one:literal, $many:literal) => {
        [
            include_str!(concat!("templates/", $one)),
            include_str!(concat!("templates/", $many)),
        ]
    };
}

impl Language {
    /// What people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::Js => "JavaScript",
            Self::Ts => "TypeScript",
            Self::Python => "Python",
            Self::C => "C",
        }
    }

    /// The file by which the page is known.
    pub(super) fn source(self) -> &'static str {
        match self {
            Self::Rust => "page.rs",
            Self::Js => "page.js",
            Self::Ts => "page.ts",
            Self::Python => "page.py",
            Self::C => "page.c",
        }
    }

    /// What is not on this machine and wisr cannot install, with what installs it.
    pub(super) async fn missing(self) -> Option<String> {
        build::missing(self.source()).await
    }

    /// The source of a page to begin with.
    pub(super) fn page(self, place: &Place) -> String {
        let [one, many] = match self {
            Self::Rust => templates!("rust.rs.in", "rust.param.rs.in"),
            Self::Js => templates!("js.js", "js.param.js"),
            Self::Ts => templates!("ts.ts", "ts.param.ts"),
            Self::Python => templates!("python.py", "python.param.py"),
            Self::C => templates!("c.c", "c.param.c"),
        };
        let params = place.params();
        let template = if params.is_empty() { one } else { many };
        let file = format!("{}/{}", place.folder(), self.source());
        let mut page = template
            .replace("@ROUTE@", place.route())
            .replace("@PATH@", &place.path())
            .replace("@NAME@", &place.name())
            .replace("@FILE@", &file)
            .replace("@TITLE@", &place.title())
            .replace("@TYPE@", &place.type_name());
        if let Some(last) = params.last() {
            page = page
                .replace("@VALUE@", &self.value(last))
                .replace("@PATHS@", &self.paths(&params))
                .replace("@PARAMS@", &types(&params));
        }
        page
    }

    /// The expression (in C the statements) for what a parameter is, as one text.
    fn value(self, param: &Param<'_>) -> String {
        let name = param.name;
        let member = member(name);
        match (self, param.kind) {
            (Self::Rust, Kind::One) => {
                format!("ctx.param(\"{name}\").unwrap_or_default().to_owned()")
            }
            (Self::Rust, _) => format!("ctx.params(\"{name}\").join(\"/\")"),
            (Self::Js | Self::Ts, Kind::One) => format!("params{member}"),
            (Self::Js | Self::Ts, Kind::Many) => format!("params{member}.join(\"/\")"),
            (Self::Js | Self::Ts, Kind::Any) => format!("(params{member} ?? []).join(\"/\")"),
            (Self::Python, Kind::One) => format!("ctx.params[\"{name}\"]"),
            (Self::Python, Kind::Many) => format!("\"/\".join(ctx.params[\"{name}\"])"),
            (Self::Python, Kind::Any) => format!("\"/\".join(ctx.params.get(\"{name}\", []))"),
            (Self::C, Kind::One) => format!("wisr_put(&value, wisr_param(ctx, \"{name}\"));"),
            (Self::C, _) => format!(
                "wisr_put(&value, \"\");
    for (size_t at = 0; wisr_param_at(ctx, \"{name}\", at); at++) {{
        if (at > 0)
            wisr_put(&value, \"/\");
        wisr_put(&value, wisr_param_at(ctx, \"{name}\", at));
    }}"
            ),
        }
    }

    /// One path, listed.
    fn paths(self, params: &[Param<'_>]) -> String {
        let all: Vec<(&str, Vec<&str>)> = params
            .iter()
            .enumerate()
            .map(|(at, param)| {
                let values = match param.kind {
                    _ if at + 1 < params.len() => vec![OTHER],
                    Kind::One => vec![EXAMPLE],
                    Kind::Many | Kind::Any => EXAMPLES.to_vec(),
                };
                (param.name, values)
            })
            .collect();
        let is_plain = params.iter().all(|param| param.kind == Kind::One);
        let list = |values: &[&str], open: &str| match values {
            [one] if open.is_empty() => format!("\"{one}\""),
            values => format!("{open}[\"{}\"]", values.join("\", \"")),
        };
        let pairs = |open: &str, write: &dyn Fn(&str, String) -> String| {
            let pairs = all
                .iter()
                .map(|(name, values)| write(name, list(values, open)));
            pairs.collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::Rust if is_plain => {
                let pairs = pairs("", &|name, value| format!("(\"{name}\", {value})"));
                format!(".path([{pairs}])")
            }
            Self::Rust => {
                let pairs = pairs("vec!", &|name, value| format!("(\"{name}\", {value})"));
                format!(".path_of_lists([{pairs}])")
            }
            Self::Js | Self::Ts => {
                let pairs = pairs("", &|name, value| format!("{}: {value}", key(name)));
                format!("[{{ params: {{ {pairs} }} }}]")
            }
            Self::Python => {
                let pairs = pairs("", &|name, value| format!("\"{name}\": {value}"));
                format!("[{{{pairs}}}]")
            }
            Self::C => {
                let each = |(name, values): &(&str, Vec<&str>)| {
                    let each = values
                        .iter()
                        .map(|value| format!(", \"{name}\", \"{value}\""));
                    each.collect::<String>()
                };
                format!("{}, NULL", all.iter().map(each).collect::<String>())
            }
        }
    }
}

/// TypeScript's type of the parameters.
fn types(params: &[Param<'_>]) -> String {
    let each = params.iter().map(|param| {
        let key = key(param.name);
        match param.kind {
            Kind::One => format!("{key}: string"),
            Kind::Many => format!("{key}: string[]"),
            Kind::Any => format!("{key}?: string[]"),
        }
    });
    format!("{{ {} }}", each.collect::<Vec<_>>().join("; "))
}

fn is_identifier(name: &str) -> bool {
    let starts = name.starts_with(|char: char| char.is_ascii_alphabetic() || char == '_');
    starts
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A key of an object in JavaScript.
fn key(name: &str) -> String {
    if is_identifier(name) {
        name.to_owned()
    } else {
        format!("\"{name}\"")
    }
}

/// How a member of an object is asked for in JavaScript.
fn member(name: &str) -> String {
    if is_identifier(name) {
        format!(".{name}")
    } else {
        format!("[\"{name}\"]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_filled_in() {
        for route in [
            "/",
            "about",
            "posts/[id]",
            "[lang]/[...post-path]",
            "docs/[[...slug]]",
        ] {
            let place = Place::parse(route).unwrap();
            for language in Language::value_variants() {
                let page = language.page(&place);
                assert!(!page.contains('@'), "{language:?} {route}: {page}");
                assert!(page.contains(place.route()), "{language:?} {route}: {page}");
            }
        }
    }
}
