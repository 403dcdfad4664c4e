//! What a function of this crate answers when it cannot compute.

use serde::{Deserialize, Serialize};

/// Why a number could not be computed. Input that is merely small or dull is no error: it has an answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "snake_case")]
pub enum Error {
    /// A count of successes exceeds the number of trials.
    #[error("{k} of {n}: more successes than trials")]
    MoreThanAll {
        /// Successes.
        k: u64,
        /// Trials.
        n: u64,
    },
    /// A parameter is outside of where the method is defined.
    #[error("{what} is {value}, and has to be {range}")]
    OutOfRange {
        /// The parameter.
        what: String,
        /// What it was, as text: NaN and infinity have no JSON.
        value: String,
        /// What it has to be.
        range: String,
    },
    /// A summary contradicts itself (a negative sum of squares, a mean that is no number).
    #[error("malformed: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
    /// There are not enough values for the method.
    #[error("too few: {what}")]
    TooFew {
        /// What is missing.
        what: String,
    },
    /// Summaries of different shapes (grids, numbers of buckets) cannot be combined.
    #[error("{what} differ and cannot be combined")]
    Mismatch {
        /// What differs.
        what: String,
    },
    /// A count exceeds what 64 bits hold.
    #[error("a count exceeds 2^64 - 1")]
    Overflow,
    /// The method would take too long for this input.
    #[error("too large: {what}")]
    TooLarge {
        /// What is too large, and the limit.
        what: String,
    },
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn range(what: &str, value: f64, range: &str) -> Self {
        Self::OutOfRange { what: what.to_owned(), value: value.to_string(), range: range.to_owned() }
    }

    pub(crate) fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed { what: what.into() }
    }

    pub(crate) fn too_few(what: impl Into<String>) -> Self {
        Self::TooFew { what: what.into() }
    }
}

/// `value` when it is a probability strictly between 0 and 1.
pub(crate) fn probability(what: &str, value: f64) -> Result<f64> {
    if value > 0.0 && value < 1.0 { Ok(value) } else { Err(Error::range(what, value, "between 0 and 1")) }
}

/// `value` when it is finite and above 0.
pub(crate) fn positive(what: &str, value: f64) -> Result<f64> {
    if value > 0.0 && value < f64::INFINITY { Ok(value) } else { Err(Error::range(what, value, "above 0")) }
}

/// `value` when it is finite.
pub(crate) fn finite(what: &str, value: f64) -> Result<f64> {
    if value.is_finite() { Ok(value) } else { Err(Error::range(what, value, "finite")) }
}
