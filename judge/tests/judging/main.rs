//! What the judge says of releases.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::cast_possible_truncation, reason = "counts of a test are small")]

mod classic_policy;
mod common;
mod default_policy;
mod edge_cases;
mod hostile;
mod must_not_promote;
mod properties;
