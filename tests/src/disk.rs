//! Files that may not grow, by a limit that every system has.

use anyhow::{Context, Result, ensure};
use std::{ffi::OsString, process::Command};

/// What starts a process so that [`limit`] can be set: a file that grows beyond it is an error then, and not the end of the
/// process.
#[must_use]
pub fn limitable() -> Vec<OsString> {
    ["sh", "-c", r#"trap '' XFSZ; exec "$@""#, "sh"].map(OsString::from).to_vec()
}

/// Sets how many bytes the files of a process may have.
///
/// # Errors
/// When it cannot be set.
pub fn limit(pid: u32, bytes: Option<u64>) -> Result<()> {
    let bytes = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
    let set = Command::new("prlimit")
        .arg(format!("--pid={pid}"))
        .arg(format!("--fsize={bytes}:unlimited"))
        .status()
        .context("prlimit, of util-linux, is needed")?;
    ensure!(set.success(), "prlimit failed");
    Ok(())
}
