//! From what a source holds to rules.

use halftone_compiler::{Diagnostic, MAX_TEXT_BYTES, compile_file, link, render};
use halftone_rules::{
    VerifiedBundle,
    codec::{self, BundleError, MAGIC},
    limits::MAX_BUNDLE_BYTES,
};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
};

/// Bytes of the largest thing that can be loaded.
pub(crate) const MAX_BYTES: usize =
    if MAX_BUNDLE_BYTES > MAX_TEXT_BYTES { MAX_BUNDLE_BYTES } else { MAX_TEXT_BYTES };

/// Why rules cannot be taken. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The bundle is damaged, not valid, or of another version.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The ruleset does not compile.
    #[error("the ruleset is not valid:\n{rendered}")]
    Ruleset {
        /// All problems, each with its place.
        diagnostics: Vec<Diagnostic>,
        /// The same as snippets of the text, for people.
        rendered: String,
    },
    /// Neither a bundle nor a text.
    #[error("this is neither a bundle nor UTF-8 text")]
    NotText,
    /// The file cannot be read.
    #[error("{} cannot be read: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// Rules that passed every check, and what tells them from others.
pub(crate) struct Loaded {
    pub(crate) bundle: VerifiedBundle,
    /// Of what they were loaded from; rules that were not loaded have none.
    pub(crate) fingerprint: Option<u64>,
}

impl Loaded {
    /// A bundle, or else a ruleset: no text starts as bundles do. A ruleset that does not name itself is called
    /// `name`, and it has no revision of its own, so it gets `revision`.
    pub(crate) fn read(bytes: &[u8], name: &str, revision: u64) -> Result<Self, LoadError> {
        if bytes.starts_with(&MAGIC) {
            return Self::bundle(bytes);
        }
        Self::ruleset(std::str::from_utf8(bytes).map_err(|_| LoadError::NotText)?, name, revision)
    }

    pub(crate) fn bundle(bytes: &[u8]) -> Result<Self, LoadError> {
        Ok(Self { bundle: codec::decode(bytes)?, fingerprint: Some(fingerprint("", bytes)) })
    }

    pub(crate) fn ruleset(text: &str, name: &str, revision: u64) -> Result<Self, LoadError> {
        let compiled = compile_file(text, name).map_err(|diagnostics| {
            let rendered = render(name, text, &diagnostics);
            LoadError::Ruleset { diagnostics, rendered }
        })?;
        // One ruleset cannot be in its own way, and the compiler has verified it; so these do not fail.
        let bundle = link(revision, [&compiled]).map_err(|error| BundleError::Payload(error.to_string()))?;
        let bundle = VerifiedBundle::new(bundle).map_err(BundleError::Invalid)?;
        Ok(Self { bundle, fingerprint: Some(fingerprint(name, text.as_bytes())) })
    }
}

fn fingerprint(name: &str, bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (name, bytes).hash(&mut hasher);
    hasher.finish()
}
