//! Reads a condition by CEL's grammar, with precedence climbing.

use super::{
    ast::{BinaryOp, Call, Expr, ExprId, ExprKind, Literal},
    lexer::{Token, tokens},
    names::{KEYWORDS, RESERVED},
    source_map::SourceMap,
};
use crate::{
    diagnostic::{Code, Diagnostics, Span},
    limits::{MAX_CONDITION_DEPTH, MAX_LIST_ELEMENTS},
};
use halftone_rules::operator::Binary;

/// Parses `condition`. Identifiers of expressions count up from `next_id`. `None` when it does not parse;
/// the reason is reported.
pub(crate) fn parse(
    condition: &str,
    map: &SourceMap,
    next_id: &mut usize,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Expr> {
    let tokens = match tokens(condition) {
        Ok(tokens) => tokens,
        Err(error) => {
            let span = map.locate(&error.span);
            match error.help {
                Some(help) => diagnostics.report_with_help(Code::ConditionSyntax, &span, error.message, help),
                None => diagnostics.report(Code::ConditionSyntax, &span, error.message),
            }
            return None;
        }
    };
    let mut parser = Parser { tokens, at: 0, depth: 0, map, next_id, diagnostics };
    let expr = parser.conditional()?;
    if *parser.peek() != Token::End {
        return parser.unexpected("an operator or the end");
    }
    Some(expr)
}

struct Parser<'a, 'b> {
    tokens: Vec<(Token, Span)>,
    at: usize,
    depth: usize,
    map: &'a SourceMap,
    next_id: &'a mut usize,
    diagnostics: &'a mut Diagnostics<'b>,
}

/// The left-associative binary operators by rising precedence; `in` stands with the comparisons.
const COMPARISONS: [BinaryOp; 6] = [
    BinaryOp { symbol: "==", op: Binary::Equal },
    BinaryOp { symbol: "!=", op: Binary::NotEqual },
    BinaryOp { symbol: "<=", op: Binary::LessEqual },
    BinaryOp { symbol: ">=", op: Binary::GreaterEqual },
    BinaryOp { symbol: "<", op: Binary::Less },
    BinaryOp { symbol: ">", op: Binary::Greater },
];
const SUMS: [BinaryOp; 2] =
    [BinaryOp { symbol: "+", op: Binary::Add }, BinaryOp { symbol: "-", op: Binary::Subtract }];
const PRODUCTS: [BinaryOp; 3] = [
    BinaryOp { symbol: "*", op: Binary::Multiply },
    BinaryOp { symbol: "/", op: Binary::Divide },
    BinaryOp { symbol: "%", op: Binary::Remainder },
];

impl Parser<'_, '_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(token, _)| token)
    }

    /// The place of the current token in the ruleset's text.
    fn here(&self) -> Span {
        let span = self.tokens.get(self.at).map_or(0..0, |(_, span)| span.clone());
        self.map.locate(&span)
    }

    /// The end of the token before the current one.
    fn end(&self) -> usize {
        let span =
            self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).map_or(0..0, |(_, span)| span.clone());
        self.map.locate(&span).end
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn accept(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Token::Symbol(found) if *found == symbol);
        if found {
            self.at += 1;
        }
        found
    }

    fn expect(&mut self, symbol: &str) -> Option<()> {
        if self.accept(symbol) { Some(()) } else { self.unexpected(&format!("`{symbol}`")) }
    }

    fn unexpected<T>(&mut self, wanted: &str) -> Option<T> {
        let message = format!("expected {wanted}, found {}", self.peek().describe());
        let span = self.here();
        match self.other_spelling() {
            Some(help) => self.diagnostics.report_with_help(Code::ConditionSyntax, &span, message, help),
            None => self.diagnostics.report(Code::ConditionSyntax, &span, message),
        }
        None
    }

    /// What to write instead of an operator of another language, at the current token or right before it.
    fn other_spelling(&self) -> Option<&'static str> {
        let before = self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).map(|(token, _)| token);
        let word = |token: &Token| match token {
            Token::Identifier(name) => name.to_ascii_lowercase(),
            _ => String::new(),
        };
        Some(match (word(self.peek()).as_str(), before.map(word).as_deref()) {
            ("and", _) => "write `&&`",
            ("or", _) => "write `||`",
            ("is", _) => "write `==`",
            ("not", _) => "write `!` before the whole, for example !(a.b in [\"x\"])",
            (_, Some("not")) => "write `!`",
            _ if *self.peek() == Token::Symbol(">") && before == Some(&Token::Symbol("<")) => "write `!=`",
            _ => return None,
        })
    }

    fn expr(&mut self, start: usize, kind: ExprKind) -> Expr {
        let id = ExprId(*self.next_id);
        *self.next_id += 1;
        Expr { id, span: start..self.end().max(start), kind }
    }

    /// Goes one level deeper for the time of `parse`.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if self.depth >= MAX_CONDITION_DEPTH {
            return self.too_deep();
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn conditional(&mut self) -> Option<Expr> {
        self.nested(|parser| {
            let start = parser.here().start;
            let condition = parser.or()?;
            if !parser.accept("?") {
                return Some(condition);
            }
            let then = parser.conditional()?;
            parser.expect(":")?;
            let otherwise = parser.conditional()?;
            Some(parser.expr(start, ExprKind::Conditional(Box::new([condition, then, otherwise]))))
        })
    }

    fn or(&mut self) -> Option<Expr> {
        self.chain("||", Self::and, ExprKind::Or)
    }

    fn and(&mut self) -> Option<Expr> {
        self.chain("&&", Self::comparison, ExprKind::And)
    }

    /// Operands joined by one associative operator, kept flat, so that long chains are not deep.
    fn chain(
        &mut self,
        symbol: &str,
        operand: fn(&mut Self) -> Option<Expr>,
        kind: fn(Vec<Expr>) -> ExprKind,
    ) -> Option<Expr> {
        let start = self.here().start;
        let first = operand(self)?;
        if !self.accept(symbol) {
            return Some(first);
        }
        let mut operands = vec![first, operand(self)?];
        while self.accept(symbol) {
            operands.push(operand(self)?);
        }
        Some(self.expr(start, kind(operands)))
    }

    fn comparison(&mut self) -> Option<Expr> {
        let start = self.here().start;
        let mut left = self.binary(&SUMS, |parser| parser.binary(&PRODUCTS, Self::unary))?;
        let mut length = 0;
        loop {
            let kind = if *self.peek() == Token::Identifier("in".into()) {
                self.at += 1;
                let right = self.binary(&SUMS, |parser| parser.binary(&PRODUCTS, Self::unary))?;
                ExprKind::In(Box::new(left), Box::new(right))
            } else if let Some(op) = self.accept_any(&COMPARISONS) {
                let right = self.binary(&SUMS, |parser| parser.binary(&PRODUCTS, Self::unary))?;
                ExprKind::Binary(op, Box::new(left), Box::new(right))
            } else {
                return Some(left);
            };
            left = self.expr(start, kind);
            self.bound(&mut length)?;
        }
    }

    fn accept_any(&mut self, ops: &[BinaryOp]) -> Option<BinaryOp> {
        ops.iter().copied().find(|op| self.accept(op.symbol))
    }

    fn binary(&mut self, ops: &[BinaryOp], operand: impl Fn(&mut Self) -> Option<Expr>) -> Option<Expr> {
        let start = self.here().start;
        let mut left = operand(self)?;
        let mut length = 0;
        while let Some(op) = self.accept_any(ops) {
            let right = operand(self)?;
            left = self.expr(start, ExprKind::Binary(op, Box::new(left), Box::new(right)));
            self.bound(&mut length)?;
        }
        Some(left)
    }

    /// A chain of left-associative operators is as deep as it is long.
    fn bound(&mut self, length: &mut usize) -> Option<()> {
        *length += 1;
        if self.depth + *length <= MAX_CONDITION_DEPTH { Some(()) } else { self.too_deep() }
    }

    fn too_deep<T>(&mut self) -> Option<T> {
        let span = self.here();
        let message = format!("the condition is nested more than {MAX_CONDITION_DEPTH} levels deep");
        self.diagnostics.report_with_help(Code::TooComplex, &span, message, "split it into several rules");
        None
    }

    fn unary(&mut self) -> Option<Expr> {
        let start = self.here().start;
        if self.at_negative_number() {
            return self.member();
        }
        if self.accept("!") {
            let operand = self.nested(Self::unary)?;
            return Some(self.expr(start, ExprKind::Not(Box::new(operand))));
        }
        if self.accept("-") {
            let operand = self.nested(Self::unary)?;
            return Some(self.expr(start, ExprKind::Negate(Box::new(operand))));
        }
        self.member()
    }

    /// Whether the current token is the sign of a number, which is a part of the literal.
    fn at_negative_number(&self) -> bool {
        let number = self.tokens.get(self.at + 1).map(|(token, _)| token);
        *self.peek() == Token::Symbol("-") && matches!(number, Some(Token::Integer(_) | Token::Double(_)))
    }

    /// A primary with selections, indexings and method calls behind it.
    fn member(&mut self) -> Option<Expr> {
        let start = self.here().start;
        let mut expr = self.primary()?;
        let mut length = 0;
        loop {
            if self.accept(".") {
                let name_span = self.here();
                let (name, quoted) = match self.next() {
                    Token::Identifier(name) if KEYWORDS.contains(&name.as_str()) => {
                        self.at -= 1;
                        let message = format!("expected a name, found `{name}`");
                        let help =
                            format!("a field with the name of a word of CEL stands in backquotes: .`{name}`");
                        self.diagnostics.report_with_help(Code::ConditionSyntax, &name_span, message, help);
                        return None;
                    }
                    Token::Identifier(name) => (name, false),
                    Token::Quoted(name) => (name, true),
                    _ => {
                        self.at -= 1;
                        return self.unexpected("a name");
                    }
                };
                let kind = if !quoted && self.accept("(") {
                    let arguments = self.list(")")?;
                    ExprKind::Call(Call { name, name_span, receiver: Some(Box::new(expr)), arguments })
                } else if let ExprKind::Name(mut path) = expr.kind {
                    path.push(name);
                    ExprKind::Name(path)
                } else {
                    ExprKind::Select(Box::new(expr), name)
                };
                expr = self.expr(start, kind);
                self.name_with_dashes(&expr)?;
            } else if self.accept("[") {
                let key = self.conditional()?;
                self.expect("]")?;
                expr = self.expr(start, ExprKind::Index(Box::new(expr), Box::new(key)));
            } else if matches!(expr.kind, ExprKind::Name(_)) && *self.peek() == Token::Symbol("{") {
                return self
                    .unsupported("message literals", "there are no messages; compare attributes one by one");
            } else {
                return Some(expr);
            }
            self.bound(&mut length)?;
        }
    }

    /// Reports `request.headers.x-tier`, which would be a subtraction: an entry with a dash is named in brackets.
    fn name_with_dashes(&mut self, expr: &Expr) -> Option<()> {
        let ExprKind::Name(path) = &expr.kind else { return Some(()) };
        let [request, map, key] = path.as_slice() else { return Some(()) };
        if request != "request" || !matches!(map.as_str(), "headers" | "cookies" | "query") {
            return Some(());
        }
        let mut name = key.clone();
        let mut end =
            self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).map_or(0, |(_, span)| span.end);
        let first = self.at;
        while let Some((token, span)) = self.tokens.get(self.at).filter(|(_, span)| span.start == end) {
            match token {
                Token::Symbol("-") => name.push('-'),
                Token::Identifier(part) => name.push_str(part),
                Token::Integer(part) => name.push_str(&part.to_string()),
                _ => break,
            }
            end = span.end;
            self.at += 1;
        }
        if self.at == first {
            return Some(());
        }
        let span = expr.span.start..self.end();
        let message = "a name ends before `-`: this would be a subtraction";
        let help = format!("write request.{map}[\"{name}\"]");
        self.diagnostics.report_with_help(Code::UnknownName, &span, message, help);
        None
    }

    fn primary(&mut self) -> Option<Expr> {
        let start = self.here().start;
        let negative = self.at_negative_number();
        if negative {
            self.at += 1;
        }
        let kind = match self.next() {
            Token::Integer(value) if negative => ExprKind::Literal(Literal::Negative(value)),
            Token::Double(value) if negative => ExprKind::Literal(Literal::Double(-value)),
            Token::Integer(value) => ExprKind::Literal(Literal::Integer(value)),
            Token::Uint(value) => ExprKind::Literal(Literal::Uint(value)),
            Token::Double(value) => ExprKind::Literal(Literal::Double(value)),
            Token::String(value) => ExprKind::Literal(Literal::String(value)),
            Token::Bytes(value) => ExprKind::Literal(Literal::Bytes(value)),
            // `.a.b` is `a.b` outside of every container, and there are no containers.
            Token::Symbol(".") => match self.peek() {
                Token::Identifier(name) if !KEYWORDS.contains(&name.as_str()) => return self.primary(),
                _ => return self.unexpected("a name"),
            },
            Token::Identifier(name) => match name.as_str() {
                "true" => ExprKind::Literal(Literal::Bool(true)),
                "false" => ExprKind::Literal(Literal::Bool(false)),
                "null" => {
                    self.at -= 1;
                    return self.unsupported("null", "use `has(a.b)` to ask whether an attribute is there");
                }
                "in" => {
                    self.at -= 1;
                    return self.unexpected("a value");
                }
                _ if RESERVED.contains(&name.as_str()) => {
                    self.at -= 1;
                    let message = format!("`{name}` is a reserved word");
                    let span = self.here();
                    self.diagnostics.report_with_help(
                        Code::ConditionSyntax,
                        &span,
                        message,
                        "CEL keeps it for later; use another name",
                    );
                    return None;
                }
                _ if self.accept("(") => {
                    let name_span = start..start + name.len();
                    let arguments = self.list(")")?;
                    ExprKind::Call(Call { name, name_span, receiver: None, arguments })
                }
                _ => ExprKind::Name(vec![name]),
            },
            Token::Symbol("(") => {
                let inner = self.conditional()?;
                self.expect(")")?;
                return Some(inner);
            }
            Token::Symbol("[") => ExprKind::List(self.list("]")?),
            Token::Symbol("{") => ExprKind::Map(self.entries()?),
            _ => {
                self.at -= 1;
                return self.unexpected("a value");
            }
        };
        Some(self.expr(start, kind))
    }

    /// Keys and values up to the closing brace. A comma may stand before it.
    fn entries(&mut self) -> Option<Vec<(Expr, Expr)>> {
        let mut entries = Vec::new();
        loop {
            if self.accept("}") {
                return Some(entries);
            }
            if entries.len() >= MAX_LIST_ELEMENTS {
                return self.too_many();
            }
            let key = self.conditional()?;
            self.expect(":")?;
            entries.push((key, self.conditional()?));
            if !self.accept(",") {
                self.expect("}")?;
                return Some(entries);
            }
        }
    }

    fn too_many<T>(&mut self) -> Option<T> {
        let message = format!("more than {MAX_LIST_ELEMENTS} elements");
        let span = self.here();
        self.diagnostics.report(Code::TooLarge, &span, message);
        None
    }

    fn unsupported<T>(&mut self, feature: &str, help: &str) -> Option<T> {
        let span = self.here();
        let message = format!("{feature}: not part of the rule language");
        self.diagnostics.report_with_help(Code::UnsupportedFeature, &span, message, help);
        None
    }

    /// Expressions separated by commas, up to the closing symbol. Before a bracket, not before a parenthesis, a comma
    /// may stand.
    fn list(&mut self, close: &str) -> Option<Vec<Expr>> {
        let mut items = Vec::new();
        loop {
            if (items.is_empty() || close == "]") && self.accept(close) {
                return Some(items);
            }
            if items.len() >= MAX_LIST_ELEMENTS {
                return self.too_many();
            }
            items.push(self.conditional()?);
            if !self.accept(",") {
                self.expect(close)?;
                return Some(items);
            }
        }
    }
}
