//! The demo's folder: what an earlier demo left there goes, and nothing else.

use anyhow::{Context, Result, bail};
use std::{fs::File, path::Path};

/// Stands in every folder that a demo made, and is locked while the demo runs.
const MARKER: &str = "made-by-halftone-demo";

/// Takes the folder for this demo, until the lock is dropped. A folder that no demo made is refused, and so is
/// one in which another demo runs.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    let marker = folder.join(MARKER);
    let has_files = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if has_files && !marker.exists() {
        bail!("{} has files that no demo made: name an empty or a new folder", folder.display());
    }
    std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let lock = File::create(&marker).with_context(|| format!("{} cannot be written to", folder.display()))?;
    if lock.try_lock().is_err() {
        bail!("another demo runs in {}: name another folder with --folder", folder.display());
    }
    Ok(lock)
}

/// Removes what an earlier demo left in the folder.
pub(crate) fn empty(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.ends_with(MARKER) {
            continue;
        }
        if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }
            .with_context(|| format!("{} cannot be removed", path.display()))?;
    }
    Ok(())
}
