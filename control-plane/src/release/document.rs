//! What a text is, before it is read as that.

use super::read::RELEASE;
use halftone_compiler::{Diagnostic, Tree};

/// What can be told of a text without knowing whether it is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// It is a release: it has `candidates`, which no ruleset has.
    pub is_release: bool,
    /// The name that it gives itself.
    pub name: Option<String>,
    /// The ruleset that it names.
    pub ruleset: Option<String>,
}

impl Document {
    /// Looks into a text (YAML or JSON).
    ///
    /// # Errors
    /// When it is neither.
    pub fn of(text: &str) -> Result<Self, Vec<Diagnostic>> {
        let value = Tree::read(text, RELEASE)?.value();
        let field = |name| value.get(name).and_then(|value| value.as_str()).map(str::to_owned);
        Ok(Self {
            is_release: value.get("candidates").is_some(),
            name: field("name"),
            ruleset: field("ruleset"),
        })
    }
}
