//! Limits of the text that the compiler accepts. Those of the program are in [`halftone_rules::limits`].

use std::time::Duration;

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
/// Clusters of proxies that rulesets are for, all together: each gets a bundle of its own, which is made and proven anew
/// with every change.
pub const MAX_NODE_CLUSTERS: usize = 32;
/// How long a target's timeouts and intervals may be.
pub const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);
/// How often a request may be sent once more. Each try holds the request's body in the proxy.
pub const MAX_RETRIES: u32 = 10;
/// Answers in a row that bring an endpoint back or take it out.
pub const MAX_CONSECUTIVE: u32 = 1_000;
/// Things that go on at the same time. Times [`MAX_ENDPOINTS`] it has to fit into 32 bits.
pub const MAX_CONCURRENCY: u32 = 1_000_000;
/// Bytes of what a health check asks for.
pub const MAX_PROBE_BYTES: usize = 1_024;
/// Elements of a list literal.
pub const MAX_LIST_ELEMENTS: usize = 10_000;
/// Problems reported for one text; what follows is likely a consequence.
pub const MAX_DIAGNOSTICS: usize = 100;
/// Regular expressions that are refused before the rest of them is not tried.
pub const MAX_REFUSED_AUTOMATA: usize = 16;
