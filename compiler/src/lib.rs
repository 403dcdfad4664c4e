//! Compiles a ruleset (YAML or JSON, conditions in a statically typed subset of CEL) to the program that
//! the filter runs.
//!
//! ```text
//! text ─ yaml ─► tree ─ document ─► Document ─ expression::parse ─► AST
//!                                                  │ expression::check (types, attributes)
//!                                                  ▼
//!                             halftone_rules::Ruleset ◄─ expression::lower
//! ```
//!
//! Every stage collects [`Diagnostic`]s with places in the text and goes on, so that one pass reports all
//! that is wrong.
#![forbid(unsafe_code)]

mod compile;
mod diagnostic;
mod disassemble;
mod document;
mod explain;
mod expression;
pub mod limits;
mod lint;
pub use limits::MAX_TEXT_BYTES;
mod link;
pub mod simulate;
mod suggest;
mod yaml;

pub use compile::{Compiled, TargetSpec, compile, compile_file};
pub use diagnostic::{Code, Diagnostic, Place, Severity, render};
pub use disassemble::{disassemble, source};
pub use explain::{AttributeValue, Explanation, RuleOutcome, explain};
pub use link::{LinkError, link};
pub use simulate::Simulation;
