//! `halftone disasm`

use super::{print, read};
use anyhow::{Context, Result};
use clap::Args;
use halftone_compiler::disassemble;
use halftone_rules::codec;
use std::path::PathBuf;

/// Flags of `halftone disasm`.
#[derive(Args, Debug)]
pub struct DisasmArgs {
    /// A bundle, as `halftone compile` writes it; `-` is standard input.
    bundle: PathBuf,
}

impl DisasmArgs {
    /// Prints the bundle as text.
    ///
    /// # Errors
    /// When the file is no valid bundle, or the text cannot be written.
    pub fn run(&self) -> Result<()> {
        let verified =
            codec::decode(&read(&self.bundle)?).with_context(|| self.bundle.display().to_string())?;
        print(disassemble(verified.bundle()).to_string())
    }
}
