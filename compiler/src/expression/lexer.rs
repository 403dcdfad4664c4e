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
    Bytes(Vec<u8>),
    /// A name in backquotes: a field that is no identifier.
    Quoted(String),
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
            Self::Bytes(_) => "a bytes literal".into(),
            Self::Quoted(name) => format!("``{name}``"),
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
            return self.text(false, false);
        }
        if first == '`' {
            return self.quoted();
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let word = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
            if matches!(self.peek(), Some('"' | '\'')) {
                match word.to_ascii_lowercase().as_str() {
                    "r" => return self.text(true, false),
                    "b" => return self.text(false, true),
                    "br" | "rb" => return self.text(true, true),
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
            '=' if self.text[..start].ends_with("!=") => Some("write `!=`"),
            '=' if self.rest().starts_with("=<") => Some("write `<=`"),
            '=' if self.rest().starts_with("=>") => Some("write `>=`"),
            '=' if self.rest().starts_with("=~") => Some("write text.matches(\"^expression$\")"),
            '=' => Some("write `==` to compare"),
            '“' | '”' | '„' | '‘' | '’' => Some("write straight quotes: \" or '"),
            '#' => Some("a comment starts with `//`"),
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

    fn quoted(&mut self) -> Result<Token, LexError> {
        let start = self.at;
        self.at += 1;
        let name = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ' '));
        if name.is_empty() || !self.rest().starts_with('`') {
            let help = "a name in backquotes consists of letters, digits, `_`, `.`, `-`, `/` and blanks";
            return Err(self.error(start..self.at, "the name in backquotes does not end", Some(help)));
        }
        self.at += 1;
        Ok(Token::Quoted(name.into()))
    }

    /// A string or bytes literal.
    fn text(&mut self, raw: bool, bytes: bool) -> Result<Token, LexError> {
        let start = self.at;
        let quote = self.peek().unwrap_or('"');
        let triple: String = [quote; 3].iter().collect();
        let (delimiter, multiline) =
            if self.rest().starts_with(&triple) { (triple, true) } else { (quote.to_string(), false) };
        self.at += delimiter.len();
        let mut value = Vec::new();
        loop {
            if self.rest().starts_with(&delimiter) {
                self.at += delimiter.len();
                break;
            }
            match self.peek() {
                Some('\\') if !raw => match self.escape(bytes)? {
                    Escape::Char(c) => push(&mut value, c),
                    Escape::Byte(byte) => value.push(byte),
                },
                Some(c) if multiline || !matches!(c, '\n' | '\r') => {
                    self.at += c.len_utf8();
                    push(&mut value, c);
                }
                _ => {
                    let help = "end it with the quote it starts with";
                    return Err(self.error(start..self.at, "the string does not end", Some(help)));
                }
            }
        }
        if bytes {
            return Ok(Token::Bytes(value));
        }
        // Without escapes to bytes, what was put together from characters is text.
        Ok(Token::String(String::from_utf8_lossy(&value).into_owned()))
    }

    fn escape(&mut self, bytes: bool) -> Result<Escape, LexError> {
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
            Some('u') if !bytes => self.digits(4, 16),
            Some('U') if !bytes => self.digits(8, 16),
            Some('0'..='3') => {
                self.at -= 1;
                self.digits(3, 8)
            }
            _ => None,
        };
        let escape = match code {
            // In bytes an escape is a byte, in text a character.
            Some(code) if bytes => u8::try_from(code).ok().map(Escape::Byte),
            Some(code) => char::from_u32(code).map(Escape::Char),
            None => None,
        };
        escape.ok_or_else(|| {
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

/// What an escape sequence stands for.
enum Escape {
    Char(char),
    Byte(u8),
}

fn push(text: &mut Vec<u8>, c: char) {
    text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}
