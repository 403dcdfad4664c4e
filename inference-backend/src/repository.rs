//! The folder of models: `NAME/VERSION/model.onnx`.

use anyhow::{Context, bail};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
};

const FILE: &str = "model.onnx";

/// A file of the repository: one version of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Name of the model.
    pub model: String,
    /// Its version.
    pub version: String,
    /// Where it is.
    pub path: PathBuf,
}

impl fmt::Display for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.model, self.version)
    }
}

/// What to serve: `NAME` (its latest version) or `NAME:VERSION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    model: String,
    version: Option<String>,
}

impl FromStr for Selection {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.split_once(':') {
            Some((model, version)) => Self { model: model.to_owned(), version: Some(version.to_owned()) },
            None => Self { model: text.to_owned(), version: None },
        })
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{}:{version}", self.model),
            None => f.write_str(&self.model),
        }
    }
}

/// What a repository holds.
#[derive(Clone, Debug)]
pub struct Repository {
    folder: PathBuf,
    /// The versions of each model in ascending order; never empty.
    models: BTreeMap<String, Vec<Artifact>>,
}

impl Repository {
    /// Looks what is there. Folders without a model are no concern of ours.
    ///
    /// # Errors
    /// When the folder cannot be read or holds no model at all.
    pub fn scan(folder: &Path) -> anyhow::Result<Self> {
        let mut models = BTreeMap::new();
        for model in folders(folder)? {
            let mut versions: Vec<_> = folders(&folder.join(&model))?
                .into_iter()
                .map(|version| Artifact {
                    path: folder.join(&model).join(&version).join(FILE),
                    model: model.clone(),
                    version,
                })
                .filter(|artifact| artifact.path.is_file())
                .collect();
            versions.sort_by(|a, b| compare_versions(&a.version, &b.version));
            if !versions.is_empty() {
                models.insert(model, versions);
            }
        }
        if models.is_empty() {
            bail!("no model in {}: expected NAME/VERSION/{FILE}", folder.display());
        }
        Ok(Self { folder: folder.to_owned(), models })
    }

    /// What to serve, in ascending order of versions: these, or without any the latest of each model.
    ///
    /// # Errors
    /// When something selected is not there; the error says what is.
    pub fn select(&self, selections: &[Selection]) -> anyhow::Result<Vec<Artifact>> {
        if selections.is_empty() {
            return Ok(self.models.values().filter_map(|versions| versions.last()).cloned().collect());
        }
        let chosen = selections
            .iter()
            .map(|selection| {
                self.find(selection).map(|artifact| artifact.path.as_path()).with_context(|| {
                    let there: Vec<_> = self.artifacts().map(Artifact::to_string).collect();
                    format!("{selection} is not in {}; there: {}", self.folder.display(), there.join(", "))
                })
            })
            .collect::<anyhow::Result<BTreeSet<&Path>>>()?;
        Ok(self.artifacts().filter(|artifact| chosen.contains(artifact.path.as_path())).cloned().collect())
    }

    fn find(&self, selection: &Selection) -> Option<&Artifact> {
        let versions = self.models.get(&selection.model)?;
        match &selection.version {
            None => versions.last(),
            Some(version) => versions.iter().find(|artifact| artifact.version == *version),
        }
    }

    fn artifacts(&self) -> impl Iterator<Item = &Artifact> {
        self.models.values().flatten()
    }
}

/// Names of the folders in a folder; what is hidden, or not named in UTF-8 and so out of a URL's reach, is left out.
fn folders(folder: &Path) -> anyhow::Result<Vec<String>> {
    let unreadable = || format!("cannot read the model repository {}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        // Follows links: repositories are often made of them.
        if !entry.path().is_dir() {
            continue;
        }
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// Numbers by their value; other names by their letters, before all numbers.
fn compare_versions(a: &str, b: &str) -> Ordering {
    let number = |version: &str| version.parse::<u64>().ok();
    number(a).cmp(&number(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        folder
    }

    fn selected(folder: &Path, selections: &[&str]) -> anyhow::Result<Vec<String>> {
        let selections: Vec<Selection> = selections.iter().map(|s| s.parse().unwrap()).collect();
        let artifacts = Repository::scan(folder)?.select(&selections)?;
        Ok(artifacts.iter().map(Artifact::to_string).collect())
    }

    #[test]
    fn selects() {
        let folder = repository(&[
            "README.md",
            ".git/1/model.onnx",
            "digits/test.csv",
            "digits/2/model.onnx",
            "digits/10/model.onnx",
            "digits/beta/model.onnx",
            "digits/11/notes.txt",
            "empty/1/notes.txt",
            "other/1/model.onnx",
        ]);
        let folder = folder.path();
        assert_eq!(selected(folder, &[]).unwrap(), ["digits:10", "other:1"]);
        assert_eq!(selected(folder, &["digits"]).unwrap(), ["digits:10"]);
        assert_eq!(
            selected(folder, &["digits:10", "other", "digits:2", "digits:beta", "digits"]).unwrap(),
            ["digits:beta", "digits:2", "digits:10", "other:1"]
        );
        for unknown in ["digits:3", "digits:", "empty", "../digits", "digits:../other/1"] {
            let error = selected(folder, &[unknown]).unwrap_err().to_string();
            assert!(error.contains("there: digits:beta, digits:2, digits:10, other:1"), "{error}");
        }
    }

    #[test]
    fn says_when_there_is_nothing() {
        let folder = repository(&["digits/test.csv"]);
        let error = Repository::scan(folder.path()).unwrap_err().to_string();
        assert!(error.contains("NAME/VERSION/model.onnx"), "{error}");
        assert!(Repository::scan(&folder.path().join("nowhere")).is_err());
    }
}
