//! `Progress`: what a person sees of a build, as a moving line on a terminal and as lines elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::terminal;

/// How often the spinner turns: often enough to look alive.
const TURN: Duration = Duration::from_millis(100);

/// The progress of one build. Dropping it clears the line.
#[derive(Debug)]
pub struct Progress {
    line: Option<ProgressBar>,
}

impl Progress {
    /// Starts to show progress where talk goes.
    pub fn start() -> Self {
        let line = terminal::watched().then(|| {
            let style = ProgressStyle::with_template("{spinner} {elapsed:>4}  {msg}")
                .expect("the template is a literal");
            let line = terminal::bar(style);
            line.enable_steady_tick(TURN);
            line
        });
        Self { line }
    }

    /// A package began to compile.
    pub fn compiling(&self, package: &str) {
        match &self.line {
            Some(line) => line.set_message(format!("compiling {package}")),
            None => terminal::say(format!("compiling {package}")),
        }
    }

    /// Something is going on that only a person who waits wants to see.
    pub fn doing(&self, what: &str) {
        if let Some(line) = &self.line {
            line.set_message(what.to_owned());
        }
    }

    /// Says something that stays.
    pub fn say(&self, text: &str) {
        terminal::say(text);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            line.finish_and_clear();
        }
    }
}
