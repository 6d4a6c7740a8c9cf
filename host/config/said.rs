//! `Said`: what the file and the environment say together.

use serde::Deserialize;
use toml::Table;

use super::environment::{Environment, Given, overlay};
use super::file::File;

/// What the person said, source by source.
pub(super) struct Said {
    /// What stands in the file.
    pub(super) file: File,
    /// The same, untyped.
    pub(super) table: Table,
    /// What variables say over it.
    pub(super) given: Vec<Given>,
}

impl Said {
    /// What `text` says, which is that of the file. The environment is not asked yet.
    ///
    /// # Errors
    /// What is wrong with the file, and in which line.
    pub(super) fn by_file(text: &str) -> anyhow::Result<Self> {
        Ok(Self {
            file: File::parse(text)?,
            table: text.parse()?,
            given: Vec::new(),
        })
    }

    /// Asks the environment as well.
    ///
    /// # Errors
    /// What is wrong with a variable, by its name.
    pub(super) fn and_by(mut self, environment: &Environment) -> anyhow::Result<Self> {
        self.given = environment.says(&self.table)?;
        Ok(self)
    }

    /// Everything that was said.
    ///
    /// # Errors
    /// None that the parts have not: each was read by itself.
    pub(super) fn all(&self) -> anyhow::Result<File> {
        self.with(&self.given)
    }

    /// What the file says, and only these variables.
    pub(super) fn with(&self, given: &[Given]) -> anyhow::Result<File> {
        if given.is_empty() {
            return Ok(self.file.clone());
        }
        Ok(File::deserialize(self.merged(given))?)
    }

    /// The same, untyped.
    pub(super) fn merged(&self, given: &[Given]) -> Table {
        let mut table = self.table.clone();
        overlay(&mut table, given);
        table
    }
}
