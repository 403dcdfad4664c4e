//! What documents say of the repository is held against it.

use anyhow::{Context, Result, ensure};
use halftone_tests::{Paths, repository};
use std::{collections::BTreeSet, fs::read_to_string, path::Path};

/// Folders that are not part of it: what is built, and what programs write that are started there without flags.
const MADE: [&str; 3] = ["target", "halftone-data", "envoy-bootstrap"];

#[test]
fn architecture_md_has_every_folder_and_no_other() -> Result<()> {
    let text = read_to_string(repository().join("docs/architecture.md"))?;
    let told: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("/` |"))
        .map(|(name, _)| name)
        .collect();
    let mut there = BTreeSet::new();
    for entry in std::fs::read_dir(repository())? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("a name")?;
        if entry.file_type()?.is_dir() && !name.starts_with('.') && !MADE.contains(&name.as_str()) {
            there.insert(name);
        }
    }
    let there: BTreeSet<&str> = there.iter().map(String::as_str).collect();
    assert_eq!(told, there);
    Ok(())
}

/// Compilers differ by a little; a text that is older than that was forgotten.
#[test]
fn architecture_md_has_the_filters_size() -> Result<()> {
    let text = read_to_string(repository().join("docs/architecture.md"))?;
    let row =
        text.lines().find_map(|line| line.strip_prefix("| size of the filter module |")).context("no row")?;
    let told: Vec<u64> =
        row.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    let paths = Paths::find()?;
    let size = |module: &Path| Ok::<u64, std::io::Error>(module.metadata()?.len() / 1_000);
    let sizes = [size(&paths.filter)?, size(&paths.portable_filter)?];
    let agree = told.iter().zip(sizes).all(|(told, size)| told.abs_diff(size) * 100 <= size * 2);
    ensure!(told.len() == 2 && agree, "told {told:?}, are {sizes:?} KB");
    Ok(())
}

/// What spans and their events say of themselves: the keys in the sources, but for tests.
fn attributes(folder: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            attributes(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = read_to_string(&path)?;
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for call in ["span.set(\"", "span.set_some(\"", "event.set(\"", "verdict.set(\""] {
                let keys = code.split(call).skip(1).filter_map(|rest| rest.split('"').next());
                found.extend(keys.map(ToOwned::to_owned));
            }
        }
    }
    Ok(())
}

#[test]
fn tracing_md_has_every_attribute_of_spans() -> Result<()> {
    let text = read_to_string(repository().join("docs/tracing.md"))?;
    let mut written = BTreeSet::new();
    for part in ["telemetry", "inference-backend", "control-plane"] {
        attributes(&repository().join(part).join("src"), &mut written)?;
    }
    ensure!(written.len() > 30, "{written:?}");
    written.retain(|key| !text.contains(&format!("`{key}`")));
    ensure!(written.is_empty(), "these are not in docs/tracing.md: {written:?}");
    Ok(())
}
