//! The old and the new rules.

use super::super::Source;
use anyhow::{Context, Result, bail};
use halftone_compiler::link;
use halftone_rules::{VerifiedBundle, codec};
use std::path::{Path, PathBuf};

/// What the user calls old or new rules.
pub(super) enum Rules {
    Bundle(VerifiedBundle),
    Sources(Vec<Source>),
}

impl Rules {
    /// Reads one bundle or any number of rulesets.
    pub(super) fn read(files: &[PathBuf]) -> Result<Self> {
        let mut sources = Vec::new();
        for file in files {
            let bytes = super::super::read(file)?;
            if is_bundle(file, &bytes) {
                let name = file.display();
                if files.len() > 1 {
                    bail!("{name} is a bundle, which has all rules: it cannot be joined with other files");
                }
                return Ok(Self::Bundle(codec::decode(&bytes).with_context(|| name.to_string())?));
            }
            sources.push(Source::new(file, bytes)?);
        }
        Ok(Self::Sources(sources))
    }

    /// The name of the ruleset, if there is only one and it compiles.
    pub(super) fn name(&self) -> Option<String> {
        match self {
            Self::Bundle(bundle) => match &bundle.bundle().rulesets[..] {
                [only] => Some(only.name.clone()),
                _ => None,
            },
            Self::Sources(sources) => match &sources[..] {
                [only] => only.compiled().ok().map(|compiled| compiled.ruleset.name.clone()),
                _ => None,
            },
        }
    }

    /// Names the ruleset, if there is only one and it does not name itself.
    pub(super) fn set_name(&mut self, name: &str) {
        if let Self::Sources(sources) = self
            && let [only] = &mut sources[..]
        {
            only.compile(name);
        }
    }

    /// The rules as the filter runs them.
    pub(super) fn verified(self) -> Result<VerifiedBundle> {
        match self {
            Self::Bundle(bundle) => Ok(bundle),
            Self::Sources(sources) => {
                let compiled = sources.iter().map(Source::compiled).collect::<Result<Vec<_>>>()?;
                Ok(codec::decode(&codec::encode(&link(1, compiled)?)?)?)
            }
        }
    }
}

/// Gives two versions of a ruleset one name. A file's name stands in for a ruleset that does not name itself,
/// and shares are drawn by ruleset and rule: under two names, the versions would have nothing in common.
pub(super) fn unify_names(old: &mut Rules, new: &mut Rules) {
    if let Some(name) = new.name() {
        old.set_name(&name);
    }
    // The old one kept its own: so the new one takes it, unless it has another.
    if let Some(name) = old.name() {
        new.set_name(&name);
    }
}

fn is_bundle(file: &Path, bytes: &[u8]) -> bool {
    bytes.starts_with(&codec::MAGIC) || file.extension().is_some_and(|extension| extension == "bundle")
}
