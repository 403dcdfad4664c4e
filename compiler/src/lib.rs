//! Compiles a ruleset (YAML or JSON, conditions in a statically typed subset of CEL) to the program that
//! the filter runs.
//!
//! ```text
//! text ─ yaml ─► tree ─ document ─► Document ─ expression::parse ─► AST
//!                                                  │ expression::check (types, attributes)
//!                                                  ▼
//!        halftone_rules::Ruleset ◄─ program ◄─ expression::lower (operations; constants are folded)
//!                                      │
//!              equal parts evaluated once, rules found by guards
//! ```
//!
//! Every stage collects [`Diagnostic`]s with places in the text and goes on, so that one pass reports all
//! that is wrong.
#![forbid(unsafe_code)]

mod allocation;
mod compile;
mod diagnostic;
mod disassemble;
mod document;
mod explain;
mod expression;
pub mod limits;
mod link;
mod lint;
mod program;
mod release;
mod show;
pub mod simulate;
mod suggest;
pub mod target;
mod tree;
mod written;
mod yaml;

pub use compile::{Compiled, compile, compile_file, compile_with, name_problem};
pub use diagnostic::{Code, Diagnostic, Place, Severity, render};
pub use disassemble::disassemble;
pub use document::json_schema;
pub use explain::{AttributeValue, Explanation, RuleOutcome, explain};
pub use expression::{Optimisation, duration, timestamp};
pub use limits::MAX_TEXT_BYTES;
pub use link::{LinkError, Member, conflicts, link};
pub use release::{Release, compile_released};
pub use show::source;
pub use simulate::Simulation;
pub use suggest::did_you_mean;
pub use target::TargetSpec;
pub use tree::Tree;
pub use written::{Written, written};
pub use yaml::Subject;
