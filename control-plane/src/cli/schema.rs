//! `halftone schema`

use super::print;
use anyhow::Result;
use clap::{Args, ValueEnum};

/// Flags of `halftone schema`.
#[derive(Args, Debug)]
pub struct SchemaArgs {
    /// Of what.
    #[arg(value_enum, default_value_t)]
    of: Of,
}

/// What has a schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Of {
    /// A ruleset.
    #[default]
    Ruleset,
    /// A release.
    Release,
}

impl SchemaArgs {
    /// Prints it.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn run(&self) -> Result<()> {
        match self.of {
            Of::Ruleset => print(format!("{:#}\n", halftone_compiler::json_schema())),
            Of::Release => print(crate::release::JSON_SCHEMA),
        }
    }
}
