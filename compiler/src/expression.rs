//! Conditions: from text to operations.

mod ast;
mod check;
mod lexer;
mod lower;
mod names;
mod parser;
mod source_map;

pub(crate) use ast::{Expr, ExprKind, Literal};
pub(crate) use check::Checker;
pub(crate) use lower::Lowering;
pub(crate) use names::{DeclaredAttribute, Names, UnknownName, header_source, is_token};
pub(crate) use parser::parse;
pub(crate) use source_map::SourceMap;
