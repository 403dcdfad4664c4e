use crate::{Paths, command};
use anyhow::Result;
use std::{path::Path, process::Output};
use tempfile::TempDir;

/// A folder of files, and the command line run in it.
pub struct Cli(TempDir);

impl Cli {
    /// With these files: name and text.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn new(files: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text)?;
        }
        Ok(Self(folder))
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs `halftone` to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, args: &[&str]) -> Result<Output> {
        Ok(command(&Paths::find()?.halftone).args(args).current_dir(self.path()).output()?)
    }
}

/// What it printed.
#[must_use]
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What it complained about.
#[must_use]
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
