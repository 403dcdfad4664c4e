//! Splits a condition into tokens by CEL's lexical grammar.

use crate::diagnostic::Span;

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Identifier(String),
    Integer(u64),
    Uint(u64),
    Double(f64),
    String(String),
    /// An operator or a bracket.
    Symbol(&'static str),
    End,
}

impl Token {
    /// For messages.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Identifier(name) => format!("`{name}`"),
            Self::Integer(_) | Self::Uint(_) | Self::Double(_) => "a number".into(),
            Self::String(_) => "a string".into(),
            Self::Symbol(symbol) => format!("`{symbol}`"),
            Self::End => "the end".into(),
        }
    }
}

/// What is wrong, and where in the condition.
#[derive(Debug)]
pub(crate) struct LexError {
    pub(crate) span: Span,
    pub(crate) message: String,
    pub(crate) help: Option<&'static str>,
}

/// Longer ones first, so that the first that fits is the right one.
const SYMBOLS: [&str; 24] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")",
    "[", "]", "{", "}",
];

/// All tokens of `text` with their places; the last one is [`Token::End`].
pub(crate) fn tokens(text: &str) -> Result<Vec<(Token, Span)>, LexError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks();
        let start = lexer.at;
        let token = lexer.token()?;
        let end = token == Token::End;
        tokens.push((token, start..lexer.at));
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Takes the characters for which `wanted` holds.
    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn error(&self, span: Span, message: impl Into<String>, help: Option<&'static str>) -> LexError {
        LexError { span, message: message.into(), help }
    }

    /// White space and `//` comments.
    fn skip_blanks(&mut self) {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c'));
            if !self.rest().starts_with("//") {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn token(&mut self) -> Result<Token, LexError> {
        let start = self.at;
        let Some(first) = self.peek() else {
            return Ok(Token::End);
        };
        if first.is_ascii_digit()
            || (first == '.' && self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()))
        {
            return self.number();
        }
        if matches!(first, '"' | '\'') {
            return self.string(false);
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let word = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
            if matches!(self.peek(), Some('"' | '\'')) {
                match word {
                    "r" | "R" => return self.string(true),
                    "b" | "B" | "br" | "bR" | "Br" | "BR" | "rb" | "rB" | "Rb" | "RB" => {
                        let help = "compare with a string instead";
                        return Err(self.error(
                            start..self.at,
                            "bytes literals are not supported",
                            Some(help),
                        ));
                    }
                    _ => {}
                }
            }
            return Ok(Token::Identifier(word.into()));
        }
        if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| self.rest().starts_with(symbol)) {
            self.at += symbol.len();
            return Ok(Token::Symbol(symbol));
        }
        let help = match first {
            '=' => Some("write `==` to compare"),
            '&' => Some("write `&&`"),
            '|' => Some("write `||`"),
            _ => None,
        };
        Err(self.error(start..start + first.len_utf8(), format!("{first:?} has no meaning here"), help))
    }

    fn number(&mut self) -> Result<Token, LexError> {
        let start = self.at;
        let token = if self.rest().starts_with("0x") || self.rest().starts_with("0X") {
            self.at += 2;
            let digits = self.take_while(|c| c.is_ascii_hexdigit());
            self.integer(start, u64::from_str_radix(digits, 16).ok())?
        } else {
            let whole = self.take_while(|c| c.is_ascii_digit());
            let fraction =
                self.rest().starts_with('.') && self.rest()[1..].starts_with(|c: char| c.is_ascii_digit());
            if fraction {
                self.at += 1;
                self.take_while(|c| c.is_ascii_digit());
            }
            let exponent = self.exponent();
            if fraction || exponent {
                let value: f64 = self.text[start..self.at].parse().unwrap_or(f64::INFINITY);
                if value.is_infinite() {
                    return Err(self.error(start..self.at, "the number is too large for a double", None));
                }
                Token::Double(value)
            } else {
                self.integer(start, whole.parse().ok())?
            }
        };
        if self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
            self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
            return Err(self.error(start..self.at, "not a number", Some("a name cannot start with a digit")));
        }
        Ok(token)
    }

    fn integer(&mut self, start: usize, value: Option<u64>) -> Result<Token, LexError> {
        let unsigned = matches!(self.peek(), Some('u' | 'U'));
        if unsigned {
            self.at += 1;
        }
        match value {
            Some(value) if unsigned => Ok(Token::Uint(value)),
            Some(value) => Ok(Token::Integer(value)),
            None => Err(self.error(start..self.at, "not an integer of 64 bits", None)),
        }
    }

    fn exponent(&mut self) -> bool {
        let rest = self.rest();
        let Some(after) = rest.strip_prefix(['e', 'E']) else {
            return false;
        };
        let digits = after.strip_prefix(['+', '-']).unwrap_or(after);
        if !digits.starts_with(|c: char| c.is_ascii_digit()) {
            return false;
        }
        self.at += rest.len() - digits.len();
        self.take_while(|c| c.is_ascii_digit());
        true
    }

    fn string(&mut self, raw: bool) -> Result<Token, LexError> {
        let start = self.at;
        let quote = self.peek().unwrap_or('"');
        let triple: String = [quote; 3].iter().collect();
        let (delimiter, multiline) =
            if self.rest().starts_with(&triple) { (triple, true) } else { (quote.to_string(), false) };
        self.at += delimiter.len();
        let mut value = String::new();
        loop {
            if self.rest().starts_with(&delimiter) {
                self.at += delimiter.len();
                return Ok(Token::String(value));
            }
            match self.peek() {
                Some('\\') if !raw => value.push(self.escape()?),
                Some(c) if multiline || !matches!(c, '\n' | '\r') => {
                    self.at += c.len_utf8();
                    value.push(c);
                }
                _ => {
                    let help = "end it with the quote it starts with";
                    return Err(self.error(start..self.at, "the string does not end", Some(help)));
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, LexError> {
        let start = self.at;
        self.at += 1;
        let letter = self.peek();
        self.at += letter.map_or(0, char::len_utf8);
        let code = match letter {
            Some('a') => Some(0x07),
            Some('b') => Some(0x08),
            Some('f') => Some(0x0c),
            Some('n') => Some(0x0a),
            Some('r') => Some(0x0d),
            Some('t') => Some(0x09),
            Some('v') => Some(0x0b),
            Some(c @ ('\\' | '\'' | '"' | '`' | '?')) => Some(u32::from(c)),
            Some('x' | 'X') => self.digits(2, 16),
            Some('u') => self.digits(4, 16),
            Some('U') => self.digits(8, 16),
            Some('0'..='3') => {
                self.at -= 1;
                self.digits(3, 8)
            }
            _ => None,
        };
        code.and_then(char::from_u32).ok_or_else(|| {
            let help = "use \\\\ for a backslash, or a raw string r\"…\"";
            self.error(start..self.at, "unknown escape sequence", Some(help))
        })
    }

    /// Exactly `count` digits.
    fn digits(&mut self, count: usize, radix: u32) -> Option<u32> {
        let digits = self.rest().get(..count)?;
        if !digits.chars().all(|c| c.is_digit(radix)) {
            return None;
        }
        self.at += count;
        u32::from_str_radix(digits, radix).ok()
    }
}
