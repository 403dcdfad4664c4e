//! Where the filter module is: the flags that `serve` and `envoy-bootstrap` share.

use anyhow::{Context, bail};
use clap::Args;
use std::path::PathBuf;

/// Where `scripts/build.sh` puts the module, in cargo's target folder.
const BUILT: &str = "wasm32-wasip1/wasm/halftone_filter.wasm";

/// Flags that name the filter module.
#[derive(Args, Debug)]
pub struct ModuleArgs {
    /// The filter module [default: the one that was built together with this program]
    #[arg(long, env = "HALFTONE_FILTER")]
    filter: Option<PathBuf>,
    /// Where the proxies find the filter module, when their machines have it elsewhere than --filter says.
    #[arg(long, env = "HALFTONE_FILTER_ON_PROXY")]
    filter_on_proxy: Option<PathBuf>,
}

impl ModuleArgs {
    /// The module on this machine.
    ///
    /// # Errors
    /// When it is not there.
    pub fn here(&self) -> anyhow::Result<PathBuf> {
        let path = match &self.filter {
            Some(path) => path.clone(),
            None => {
                let this = std::env::current_exe()?;
                // This program is in the folder of its profile, and that is in the target folder.
                this.ancestors().nth(2).context("no folder is above this program's")?.join(BUILT)
            }
        };
        if !path.is_file() {
            let remedy = "build it with scripts/build.sh, or name it with --filter";
            bail!("the filter module {} is missing: {remedy}", path.display());
        }
        Ok(std::path::absolute(path)?)
    }

    /// The module on the proxies' machines, as an absolute path.
    ///
    /// # Errors
    /// When it has to be on this machine and is not.
    pub fn on_proxy(&self) -> anyhow::Result<PathBuf> {
        match &self.filter_on_proxy {
            Some(path) => Ok(std::path::absolute(path)?),
            None => self.here(),
        }
    }
}
