//! The folder of models: `NAME/VERSION/model.onnx` or, of a model that another server has, `NAME/VERSION/remote.json`; and
//! for each model perhaps a `config.json`.

use crate::{
    config::{self, ModelConfig, VersionPolicy},
    remote::config::{self as remote, RemoteConfig},
};
use anyhow::{Context, bail};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    str::FromStr,
    time::SystemTime,
};

const FILE: &str = "model.onnx";

/// How deep below a version's folder its files are looked at.
const DEPTH: usize = 4;

/// A file of the repository: one version of a model. Equal as long as neither its files nor its configuration change.
#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    /// Name of the model.
    pub model: String,
    /// Its version.
    pub version: String,
    /// Where it is, or what is wrong with what says so.
    pub source: Result<Source, String>,
    /// How it is to be served, or what is wrong with what says so.
    pub config: Result<ModelConfig, String>,
    /// All files of the version, which may have its weights in files of their own.
    files: Vec<Stamp>,
}

/// Where a version of a model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In this file.
    File(PathBuf),
    /// At another server.
    Remote(RemoteConfig),
}

/// What changes when a file does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stamp {
    path: PathBuf,
    size: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

impl fmt::Display for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.model, self.version)
    }
}

impl Artifact {
    /// Whether its files are still those that were found.
    #[must_use]
    pub fn is_as_found(&self) -> bool {
        let Ok(Source::File(path)) = &self.source else { return true };
        let mut files = Vec::new();
        let read = path.parent().map_or(Ok(()), |folder| stamps(folder, DEPTH, &mut files));
        files.sort();
        read.is_ok() && files == self.files
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
    /// When the folder cannot be read.
    pub fn look(folder: &Path) -> anyhow::Result<Self> {
        let mut models = BTreeMap::new();
        for model in folders(folder)? {
            let versions = versions(folder, &model)?;
            if !versions.is_empty() {
                models.insert(model, versions);
            }
        }
        Ok(Self { folder: folder.to_owned(), models })
    }

    /// Looks what is there, at the start.
    ///
    /// # Errors
    /// When the folder cannot be read or holds no model at all.
    pub fn scan(folder: &Path) -> anyhow::Result<Self> {
        let repository = Self::look(folder)?;
        if repository.models.is_empty() {
            bail!("no model in {}: expected NAME/VERSION/{FILE} or {}", folder.display(), remote::FILE);
        }
        Ok(repository)
    }

    /// What to serve, in ascending order of versions: these, or without any all models. Of a model without a version
    /// those that its configuration says, or the latest.
    ///
    /// # Errors
    /// When something selected is not there; the error says what is.
    pub fn select(&self, selections: &[Selection]) -> anyhow::Result<Vec<Artifact>> {
        for selection in selections {
            self.find(selection).with_context(|| {
                let there: Vec<_> = self.artifacts().map(Artifact::to_string).collect();
                format!("{selection} is not in {}; there: {}", self.folder.display(), there.join(", "))
            })?;
        }
        let wanted = self.models.keys().flat_map(|model| self.wanted(model, selections));
        Ok(wanted.cloned().collect())
    }

    /// Names of the models.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }

    /// All versions of a model, in ascending order.
    #[must_use]
    pub fn versions(&self, model: &str) -> &[Artifact] {
        self.models.get(model).map_or(&[], Vec::as_slice)
    }

    /// The versions of a model that are to be served, in ascending order: as selected, or when nothing is selected at
    /// all, by its policy.
    #[must_use]
    pub fn wanted(&self, model: &str, selections: &[Selection]) -> Vec<&Artifact> {
        let of_model: Vec<_> = selections.iter().filter(|selection| selection.model == model).collect();
        let by_policy = selections.is_empty() || of_model.iter().any(|selection| selection.version.is_none());
        let named: BTreeSet<&str> =
            of_model.iter().filter_map(|selection| selection.version.as_deref()).collect();
        let chosen = if by_policy { self.by_policy(model) } else { Vec::new() };
        let is_chosen = |artifact: &&Artifact| {
            named.contains(artifact.version.as_str()) || chosen.iter().any(|c| c.version == artifact.version)
        };
        self.versions(model).iter().filter(is_chosen).collect()
    }

    /// The versions of a model that its policy says.
    #[must_use]
    pub fn by_policy(&self, model: &str) -> Vec<&Artifact> {
        let versions = self.versions(model);
        let config = versions.first().and_then(|artifact| artifact.config.as_ref().ok());
        match config.and_then(|config| config.versions.clone()).unwrap_or_default() {
            VersionPolicy::Latest(count) => {
                versions.iter().skip(versions.len().saturating_sub(count.get())).collect()
            }
            VersionPolicy::Specific(named) => {
                versions.iter().filter(|artifact| named.contains(&artifact.version)).collect()
            }
        }
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

/// The versions of a model, in ascending order.
fn versions(folder: &Path, model: &str) -> anyhow::Result<Vec<Artifact>> {
    let config = ModelConfig::read(&folder.join(model));
    let mut versions = Vec::new();
    for version in folders(&folder.join(model))? {
        let path = folder.join(model).join(&version);
        let Some(source) = source(&path).transpose() else { continue };
        let mut files = Vec::new();
        // What cannot be read now, differs from what can be read later.
        let _ = stamps(&path, DEPTH, &mut files);
        files.sort();
        let (model, config) = (model.to_owned(), config.clone());
        versions.push(Artifact { model, version, source, config, files });
    }
    versions.sort_by(|a, b| compare_versions(&a.version, &b.version));
    Ok(versions)
}

/// Where the version of this folder is; none when it is no version.
fn source(folder: &Path) -> Result<Option<Source>, String> {
    let (file, is_remote) = (folder.join(FILE), folder.join(remote::FILE).is_file());
    match (file.is_file(), is_remote) {
        (false, false) => Ok(None),
        (true, false) => Ok(Some(Source::File(file))),
        (false, true) => {
            let Some(config) = config::read::<RemoteConfig>(folder, remote::FILE)? else { return Ok(None) };
            config.check().map_err(|problem| format!("{}: {problem}", remote::FILE))?;
            Ok(Some(Source::Remote(config)))
        }
        (true, true) => {
            Err(format!("there are both {FILE} and {}; remove the one that is not meant", remote::FILE))
        }
    }
}

fn stamps(folder: &Path, depth: usize, into: &mut Vec<Stamp>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // Follows links: what they lead to is what is loaded.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_dir() && depth > 0 {
            stamps(&path, depth - 1, into)?;
        } else if metadata.is_file() {
            let (size, modified, inode) = (metadata.len(), metadata.modified().ok(), metadata.ino());
            into.push(Stamp { path, size, modified, inode });
        }
    }
    Ok(())
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
pub(crate) fn compare_versions(a: &str, b: &str) -> Ordering {
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
    fn the_configuration_says_which_versions() {
        let folder = repository(&["m/1/model.onnx", "m/2/model.onnx", "m/3/model.onnx"]);
        let config = folder.path().join("m/config.json");
        for (policy, expected) in [
            (r#"{"latest": 2}"#, &["m:2", "m:3"][..]),
            (r#"{"latest": 9}"#, &["m:1", "m:2", "m:3"]),
            (r#"{"specific": ["3", "1", "7"]}"#, &["m:1", "m:3"]),
        ] {
            fs::write(&config, format!(r#"{{"versions": {policy}}}"#)).unwrap();
            assert_eq!(selected(folder.path(), &[]).unwrap(), expected);
            assert_eq!(selected(folder.path(), &["m"]).unwrap(), expected);
        }
        // What the command line names, it gets besides.
        assert_eq!(selected(folder.path(), &["m:2"]).unwrap(), ["m:2"]);
        assert_eq!(selected(folder.path(), &["m", "m:2"]).unwrap(), ["m:1", "m:2", "m:3"]);
    }

    #[test]
    fn what_changes_differs() {
        let folder = repository(&["m/1/model.onnx", "m/1/data/weights.bin"]);
        let look = || Repository::look(folder.path()).unwrap().versions("m").to_vec();
        let before = look();
        assert_eq!(look(), before);
        fs::write(folder.path().join("m/1/data/weights.bin"), "1").unwrap();
        let weights = look();
        assert_ne!(weights, before);
        assert!(weights[0].is_as_found() && !before[0].is_as_found());
        fs::write(folder.path().join("m/config.json"), "{").unwrap();
        assert!(look()[0].config.is_err());
        assert_ne!(look(), weights);
    }

    #[test]
    fn a_version_is_here_or_elsewhere() {
        let folder = repository(&["m/1/model.onnx", "m/2/remote.json", "m/3/remote.json", "m/3/model.onnx"]);
        let source = |version: usize| {
            let repository = Repository::look(folder.path()).unwrap();
            repository.versions("m")[version - 1].source.clone()
        };
        assert_eq!(source(1), Ok(Source::File(folder.path().join("m/1/model.onnx"))));
        assert_eq!(source(2).unwrap_err(), "remote.json: EOF while parsing a value at line 1 column 0");
        fs::write(folder.path().join("m/2/remote.json"), r#"{"url": "http://a:1", "connections": 0}"#)
            .unwrap();
        assert_eq!(source(2).unwrap_err(), "remote.json: connections is 0, expected 1 to 64");
        fs::write(folder.path().join("m/2/remote.json"), r#"{"url": "http://a:1"}"#).unwrap();
        assert!(matches!(source(2), Ok(Source::Remote(_))));
        assert_eq!(
            source(3).unwrap_err(),
            "there are both model.onnx and remote.json; remove the one that is not meant"
        );
    }

    #[test]
    fn says_when_there_is_nothing() {
        let folder = repository(&["digits/test.csv"]);
        let error = Repository::scan(folder.path()).unwrap_err().to_string();
        assert!(error.contains("NAME/VERSION/model.onnx"), "{error}");
        assert!(Repository::scan(&folder.path().join("nowhere")).is_err());
    }
}
