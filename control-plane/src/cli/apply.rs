//! `halftone apply`

use super::{
    client::{Client, ServerArgs, block_on},
    print, read,
};
use crate::release::{self, Document};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use halftone_compiler::render;
use reqwest::Method;
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Endings of files that are taken from a folder.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// Flags of `halftone apply`.
#[derive(Args, Debug)]
pub struct ApplyArgs {
    /// Files with rulesets and releases, or folders whose .yaml, .yml and .json are taken (not those of folders inside);
    /// `-` is standard input. What does not name itself is named after its file.
    #[arg(short, long = "file", required = true, num_args = 1.., value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Check everything, say what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Wait, for each ruleset that changes, until all proxies have it. Exits with 1 when they do not.
    #[arg(long, value_enum, value_name = "GOAL")]
    wait: Option<Goal>,
    #[command(flatten)]
    server: ServerArgs,
}

/// What all proxies are to have done with a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Goal {
    /// Taken it.
    Acked,
    /// Taken it, and decide by it on all of their workers.
    Applied,
}

/// A text that is applied.
struct Applied {
    file: String,
    text: String,
    name: String,
    is_release: bool,
    /// A release's ruleset.
    ruleset: Option<String>,
}

/// The part of the answer that is told.
#[derive(Deserialize)]
struct Put {
    changed: bool,
    fleet: Option<Fleet>,
}

#[derive(Deserialize)]
struct Fleet {
    revision: u64,
    proxies: usize,
    acked: usize,
    applied: usize,
}

/// The part of a release that is compared.
#[derive(Deserialize)]
struct Kept {
    source: String,
}

impl ApplyArgs {
    /// Brings the control plane to what the files say: checks all, then rulesets, then releases.
    ///
    /// # Errors
    /// When a text is refused (where all were checked before, nothing was changed), or nobody answers.
    pub fn run(&self) -> Result<()> {
        let mut all = Vec::new();
        for path in &self.files {
            for file in files(path)? {
                all.push(Applied::read(&file)?);
            }
        }
        if all.is_empty() {
            bail!("there is no .yaml, .yml or .json to apply");
        }
        // Releases find their rulesets there then.
        all.sort_by_key(|applied| applied.is_release);
        let mut known = BTreeSet::new();
        if let Some(again) = all.iter().find(|of| !known.insert((of.is_release, of.name.as_str()))) {
            bail!("{}: there is another {}: give each its own name", again.file, again.title());
        }
        let client = Client::new(&self.server)?;
        block_on(self.apply(&client, &all))
    }

    async fn apply(&self, client: &Client, all: &[Applied]) -> Result<()> {
        let rulesets: BTreeSet<&str> =
            all.iter().filter(|of| !of.is_release).map(|of| of.name.as_str()).collect();
        // Such a release can be checked by the control plane only once its ruleset is there.
        let comes_later =
            |of: &Applied| of.ruleset.as_deref().is_some_and(|ruleset| rulesets.contains(ruleset));
        let mut refused = Vec::new();
        for applied in all {
            let checked =
                if comes_later(applied) { applied.check_form() } else { applied.check(client).await };
            if let Err(error) = checked {
                if super::client::is_unreachable(&error) {
                    return Err(error);
                }
                refused.push(format!("{}: {error:#}", applied.file));
            }
        }
        if !refused.is_empty() {
            bail!("nothing was changed\n{}", refused.join("\n"));
        }
        for applied in all {
            if self.dry_run {
                let form = if comes_later(applied) { "; only its form was checked" } else { "" };
                print(format!("{}: {}{form}\n", applied.title(), applied.would(client).await?))?;
                continue;
            }
            let put = async {
                if comes_later(applied) {
                    applied.check(client).await?;
                }
                self.put(client, applied).await
            };
            let done = put.await.with_context(|| format!("{}, {}", applied.file, applied.title()))?;
            print(format!("{}: {done}\n", applied.title()))?;
        }
        Ok(())
    }

    async fn put(&self, client: &Client, applied: &Applied) -> Result<String> {
        let goal = self.wait.filter(|_| !applied.is_release);
        let query: &[_] = match goal {
            Some(Goal::Acked) => &[("wait", "acked"), ("timeout", "60s")],
            Some(Goal::Applied) => &[("wait", "applied"), ("timeout", "60s")],
            None => &[],
        };
        let answer = client.change(Method::PUT, &applied.path(), query, applied.text.clone()).await?;
        let put: Put = serde_json::from_str(&answer.body).context("the answer is not understood")?;
        let done = match (answer.created, put.changed) {
            (true, _) => "created",
            (false, true) => "changed",
            (false, false) => "unchanged",
        };
        let (Some(goal), Some(fleet)) = (goal, put.fleet) else { return Ok(done.to_owned()) };
        let Fleet { revision, proxies, acked, applied } = fleet;
        let (there, what) = match goal {
            Goal::Acked => (acked, "acked"),
            Goal::Applied => (applied, "applied"),
        };
        if there < proxies {
            bail!("{done}, but revision {revision} is {what} by {there} of {proxies} proxies: see /v1/nodes");
        }
        Ok(format!("{done}; revision {revision} is {what} by all {proxies} proxies"))
    }
}

impl Applied {
    fn read(path: &Path) -> Result<Self> {
        let file = path.display().to_string();
        let text = String::from_utf8(read(path)?).with_context(|| format!("{file} is not UTF-8"))?;
        let document = Document::of(&text).map_err(|problems| {
            anyhow::anyhow!("{}", render(&file, &text, &problems).trim_end().to_owned())
        })?;
        let stem = path.file_stem().and_then(|stem| stem.to_str()).filter(|stem| *stem != "-");
        let name = document.name.or_else(|| stem.map(str::to_owned));
        let name = name.with_context(|| format!("{file}: what comes from standard input needs a `name`"))?;
        Ok(Self { file, text, name, is_release: document.is_release, ruleset: document.ruleset })
    }

    /// For people.
    fn title(&self) -> String {
        format!("{} {}", if self.is_release { "release" } else { "ruleset" }, self.name)
    }

    fn path(&self) -> [&str; 3] {
        ["v1", if self.is_release { "releases" } else { "rulesets" }, &self.name]
    }

    /// Has the control plane check it.
    async fn check(&self, client: &Client) -> Result<()> {
        let [version, collection, name] = self.path();
        let last = format!("{name}:validate");
        client.change(Method::POST, &[version, collection, &last], &[], self.text.clone()).await?;
        Ok(())
    }

    /// Checks what can be checked without the control plane.
    fn check_form(&self) -> Result<()> {
        match release::read(&self.text, Some(&self.name)) {
            Ok(_) => Ok(()),
            Err(problems) => bail!("{}", render(&self.file, &self.text, &problems).trim_end()),
        }
    }

    /// What applying it would do.
    async fn would(&self, client: &Client) -> Result<&'static str> {
        let Some(found) = client.find(&self.path()).await? else { return Ok("would be created") };
        let source = if self.is_release {
            serde_json::from_str::<Kept>(&found).context("the answer is not understood")?.source
        } else {
            found
        };
        Ok(if source == self.text { "unchanged" } else { "would be changed" })
    }
}

/// A file, or those of a folder by their names.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = || format!("the folder {} cannot be read", path.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if ENDINGS.contains(&ending) && !is_hidden && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
