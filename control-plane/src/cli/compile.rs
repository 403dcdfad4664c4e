//! `halftone compile`

use super::{Source, print, print_text};
use anyhow::{Context, Result, bail};
use clap::Args;
use halftone_compiler::link;
use halftone_rules::codec;
use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Flags of `halftone compile`.
#[derive(Args, Debug)]
pub struct CompileArgs {
    /// Files with rulesets; `-` is standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Where the bundle goes; `-` is standard output.
    #[arg(short, long, default_value = "halftone.bundle")]
    output: PathBuf,
    /// The revision that the bundle names.
    #[arg(long, default_value_t = 1)]
    revision: u64,
}

impl CompileArgs {
    /// Writes the bundle of all files.
    ///
    /// # Errors
    /// When a ruleset does not compile or does not fit to the others, or the bundle would take the place of one of
    /// them. Nothing is written then.
    pub fn run(&self) -> Result<()> {
        if self.files.iter().any(|file| is_same(file, &self.output)) {
            bail!("{} has a ruleset: name another file for the bundle", self.output.display());
        }
        let sources = self.files.iter().map(|file| Source::read(file)).collect::<Result<Vec<_>>>()?;
        let compiled = sources.iter().map(Source::compiled).collect::<Result<Vec<_>>>()?;
        let bundle = link(self.revision, compiled)?;
        let bytes = codec::encode(&bundle)?;
        if self.output == Path::new("-") {
            return print(bytes);
        }
        std::fs::write(&self.output, &bytes)
            .with_context(|| format!("{} cannot be written", self.output.display()))?;
        let rules: usize = bundle.rulesets.iter().map(|ruleset| ruleset.rules.len()).sum();
        print_text(&format!(
            "{}: {} bytes, {}, {}\n",
            self.output.display(),
            bytes.len(),
            counted(bundle.rulesets.len(), "ruleset"),
            counted(rules, "rule")
        ))
    }
}

/// Whether two paths lead to one file, also by links.
fn is_same(a: &Path, b: &Path) -> bool {
    let id = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    id(a).is_some_and(|id_of_a| id(b) == Some(id_of_a))
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
