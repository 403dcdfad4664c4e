//! Every limit of the bundle and the evaluator, in one place.
//!
//! The compiler reports them as diagnostics; the verifier enforces them again on bytes it has not
//! compiled itself.

/// Bytes of an encoded bundle.
pub const MAX_BUNDLE_BYTES: usize = 4 << 20;
/// Rulesets in a bundle.
pub const MAX_RULESETS: usize = 1_000;
/// Rules in a ruleset.
pub const MAX_RULES: usize = 20_000;
/// Attributes that one ruleset may read.
pub const MAX_ATTRIBUTES: usize = 64;
/// Targets of a ruleset.
pub const MAX_TARGETS: usize = 256;
/// Bytes of an attribute's value that conditions work on; a longer one counts as having no value. Bounds what
/// a request can cost, whatever its headers.
pub const MAX_VALUE_BYTES: usize = 8 << 10;
/// Values on the evaluator's stack.
pub const MAX_STACK: usize = 64;
/// Operations in one condition.
pub const MAX_CONDITION_OPS: usize = 4_096;
/// Bytes of a name: ruleset, rule, target, attribute, header.
pub const MAX_NAME_BYTES: usize = 128;
/// Bytes of a rule's seed. Long enough for a ruleset's and a rule's name and the separator.
pub const MAX_SEED_BYTES: usize = 512;
