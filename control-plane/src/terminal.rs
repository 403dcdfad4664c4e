//! What is shown on a terminal, which obeys control characters: names of files, logs and whoever passes by the filter may have any.

/// The text with its control characters written out, but for line feeds and tabs.
#[must_use]
pub fn printable(text: &str) -> String {
    escaped(text, |c| c.is_control() && !matches!(c, '\n' | '\t'))
}

/// As [`printable`], and nothing of it looks like another line, stands elsewhere than it is, or is not seen at all.
#[must_use]
pub fn one_line(text: &str) -> String {
    let moves = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    escaped(text, |c| c.is_control() || moves(c))
}

fn escaped(text: &str, is_odd: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_odd(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_control_characters() {
        let text = "a\u{1b}[2J\u{9b}\r\n\tb\u{202e}\u{2028}ä";
        assert_eq!(printable(text), "a\\u{1b}[2J\\u{9b}\\r\n\tb\u{202e}\u{2028}ä");
        assert_eq!(one_line(text), "a\\u{1b}[2J\\u{9b}\\r\\n\\tb\\u{202e}\\u{2028}ä");
    }
}
