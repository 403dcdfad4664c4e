//! `halftone compile`

use super::Source;
use anyhow::{Context, Result};
use clap::Args;
use halftone_compiler::link;
use halftone_rules::codec;
use std::path::PathBuf;

/// Flags of `halftone compile`.
#[derive(Args, Debug)]
pub struct CompileArgs {
    /// Files with rulesets; `-` is standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Where the bundle goes.
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
    /// When a ruleset does not compile or does not fit to the others. Nothing is written then.
    pub fn run(&self) -> Result<()> {
        let sources = self.files.iter().map(|file| Source::read(file)).collect::<Result<Vec<_>>>()?;
        let compiled = sources.iter().map(Source::compiled).collect::<Result<Vec<_>>>()?;
        let bundle = link(self.revision, compiled)?;
        let bytes = codec::encode(&bundle)?;
        std::fs::write(&self.output, &bytes)
            .with_context(|| format!("{} cannot be written", self.output.display()))?;
        let rules: usize = bundle.rulesets.iter().map(|ruleset| ruleset.rules.len()).sum();
        println!(
            "{}: {} bytes, {}, {}",
            self.output.display(),
            bytes.len(),
            counted(bundle.rulesets.len(), "ruleset"),
            counted(rules, "rule")
        );
        Ok(())
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
