//! Conditions: from text to operations.

mod ast;
mod calendar;
mod check;
mod fold;
mod functions;
mod lexer;
mod lower;
mod names;
mod parser;
mod regex;
mod source_map;

pub(crate) use ast::{Expr, ExprKind, Literal};
pub use calendar::{duration, timestamp};
pub(crate) use calendar::{show_duration, show_timestamp};
pub(crate) use check::{Checker, Resolved};
pub(crate) use fold::SizeLimit;
pub use lower::Optimisation;
pub(crate) use lower::{Lowering, Node, chain};
pub(crate) use names::{
    DeclaredAttribute, KEYWORDS, NOW, Names, RESERVED, UnknownName, cookie_source, header_source,
    is_attribute_name, query_source,
};
pub(crate) use parser::parse;
pub(crate) use source_map::SourceMap;
