//! `Failure`: how a generation ended without a page, and everything needed to act on it.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Cost;

/// How a generation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The page returned an error.
    Error,
    /// The guest trapped: a panic, a bad memory access, a stack overflow.
    Trap,
    /// It used up its CPU time.
    Cpu,
    /// It used up its wall time.
    Wall,
    /// It asked for more memory than its limit.
    Memory,
    /// Its page or props were larger than their limit.
    Output,
    /// It held too many tables, handles, resources or host-call bytes.
    Resources,
    /// It called `exit` instead of returning.
    Exit,
    /// What it returned breaks a rule: an invalid status, header, redirect or tag.
    Invalid,
    /// It returned a 5xx status, which never replaces a good page.
    ServerError,
    /// wisr itself failed: a bug, contained to this generation.
    Host,
}

impl FailureKind {
    /// The word for logs, metrics and incidents.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureKind::Error => "error",
            FailureKind::Trap => "trap",
            FailureKind::Cpu => "cpu",
            FailureKind::Wall => "wall",
            FailureKind::Memory => "memory",
            FailureKind::Output => "output",
            FailureKind::Resources => "resources",
            FailureKind::Exit => "exit",
            FailureKind::Invalid => "invalid",
            FailureKind::ServerError => "server-error",
            FailureKind::Host => "host",
        }
    }
}

/// One frame of a guest's backtrace.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Frame {
    /// The demangled function, or its index where the module has no names.
    pub function: String,
    /// `file:line` where the module carries debug information.
    pub location: Option<String>,
}

/// A failed generation.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// How it ended.
    pub kind: FailureKind,
    /// What was being called: `instantiate`, `static-props`, `render`, `static-paths`, `shell`, `handle`.
    pub call: Cow<'static, str>,
    /// A sentence that a page author can act on, the limit named where one was hit; where the page's
    /// language has them, lines of a stack follow.
    pub message: String,
    /// The end of what the guest wrote to stderr: its panic message.
    pub stderr: String,
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// The props that `render` failed on, cut where they are long; none before there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub props: Option<String>,
    /// What it had used by then, its fetches included.
    pub cost: Cost,
}

impl Failure {
    /// The props for people to read: in lines, unless they were cut and are no JSON any more.
    pub fn readable_props(&self) -> Option<String> {
        let props = self.props.as_ref()?;
        let value = serde_json::from_str::<serde_json::Value>(props);
        let pretty = value.and_then(|value| serde_json::to_string_pretty(&value));
        Some(pretty.unwrap_or_else(|_| props.clone()))
    }

    /// A failure with nothing but its reason.
    pub fn new(
        kind: FailureKind,
        call: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            call: call.into(),
            message: message.into(),
            stderr: String::new(),
            frames: Vec::new(),
            props: None,
            cost: Cost::default(),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (call, kind) = (&self.call, self.kind.as_str());
        match self.message.split_once('\n') {
            None => write!(f, "{call}: {} ({kind})", self.message),
            Some((first, stack)) => write!(f, "{call}: {first} ({kind})\n{stack}"),
        }
    }
}
