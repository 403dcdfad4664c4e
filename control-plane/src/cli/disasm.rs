//! `halftone disasm`

use anyhow::{Context, Result};
use clap::Args;
use halftone_compiler::disassemble;
use halftone_rules::codec;
use std::path::PathBuf;

/// Flags of `halftone disasm`.
#[derive(Args, Debug)]
pub struct DisasmArgs {
    /// A bundle, as `halftone compile` writes it.
    bundle: PathBuf,
}

impl DisasmArgs {
    /// Prints the bundle as text.
    ///
    /// # Errors
    /// When the file is no valid bundle.
    pub fn run(&self) -> Result<()> {
        let name = self.bundle.display();
        let bytes = std::fs::read(&self.bundle).with_context(|| format!("{name} cannot be read"))?;
        let verified = codec::decode(&bytes).with_context(|| format!("{name}"))?;
        print!("{}", disassemble(verified.bundle()));
        Ok(())
    }
}
