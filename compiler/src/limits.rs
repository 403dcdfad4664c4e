//! Limits of the text that the compiler accepts. Those of the program are in [`halftone_rules::limits`].

/// Bytes of a ruleset's text.
pub const MAX_TEXT_BYTES: usize = 4 << 20;
/// Levels of nesting in the YAML.
pub const MAX_YAML_DEPTH: usize = 16;
/// Bytes of a condition.
pub const MAX_CONDITION_BYTES: usize = 16 << 10;
/// Levels of nesting in a condition; an operand of a chain of arithmetic counts as one.
pub const MAX_CONDITION_DEPTH: usize = 100;
/// Endpoints of a target.
pub const MAX_ENDPOINTS: usize = 1_000;
/// Elements of a list literal.
pub const MAX_LIST_ELEMENTS: usize = 10_000;
/// Problems reported for one text; what follows is likely a consequence.
pub const MAX_DIAGNOSTICS: usize = 100;
/// Regular expressions that are refused before the rest of them is not tried.
pub const MAX_REFUSED_AUTOMATA: usize = 16;
