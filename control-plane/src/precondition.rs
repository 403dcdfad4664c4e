//! What has to be true for a change to be made.

/// What has to be true of a ruleset or a release for a change to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    None,
    /// It is as of exactly this version: the revision of a ruleset, the generation of a release.
    Since(u64),
    /// It exists.
    Exists,
    /// It does not exist.
    Absent,
}

impl Precondition {
    /// Whether that is so, with the version that there is.
    #[must_use]
    pub fn holds(self, version: Option<u64>) -> bool {
        match self {
            Self::None => true,
            Self::Since(wanted) => version == Some(wanted),
            Self::Exists => version.is_some(),
            Self::Absent => version.is_none(),
        }
    }
}
