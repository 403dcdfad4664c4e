//! Every limit of the bundle and the evaluator, in one place.
//!
//! The compiler reports them as diagnostics; the verifier enforces them again on bytes it has not
//! compiled itself.

/// Bytes of an encoded bundle.
pub const MAX_BUNDLE_BYTES: usize = 4 << 20;
/// Bytes of memory that a bundle may ask for while it is decoded. The smallest operation has one byte in the
/// bundle and twelve in memory, so this is more than [`MAX_BUNDLE_BYTES`] can need.
pub const MAX_DECODED_BYTES: usize = 16 * MAX_BUNDLE_BYTES;
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
/// Predicates that conditions share.
pub const MAX_PREDICATES: usize = 128;
/// Layers of a ruleset.
pub const MAX_LAYERS: usize = 64;
/// Experiments of a ruleset that do not route.
pub const MAX_EXPERIMENTS: usize = 64;
/// Experiments that are reported for one request.
pub const MAX_REPORTED: usize = 16;
/// Arms of a rule or an experiment.
pub const MAX_ARMS: usize = 64;
/// Overrides of a ruleset.
pub const MAX_OVERRIDES: usize = 10_000;
/// Pairs of an attribute and a way to compare it that rules are looked up by.
pub const MAX_INDEXES: usize = 4;
/// Different lengths of the prefixes that one attribute is looked up by.
pub const MAX_PREFIX_LENGTHS: usize = 16;
/// Levels of the tree that finds the ranges which a number lies in; enough for [`MAX_RULES`].
pub const MAX_RANGE_LEVELS: usize = 17;
/// Bytes of an automaton.
pub const MAX_AUTOMATON_BYTES: usize = 64 << 10;
/// Automata of a ruleset.
pub const MAX_AUTOMATA: usize = 256;
/// Steps that deciding for one request can take at most. A step is an operation, or a byte that an operation
/// looks at; see `cost` in the verifier.
pub const MAX_STEPS: u64 = 8_000_000;
