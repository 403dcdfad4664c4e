//! What the judge says of releases.

mod classic_policy;
mod common;
mod default_policy;
mod must_not_promote;
mod properties;
