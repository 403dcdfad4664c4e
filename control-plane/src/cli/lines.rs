//! Reads logs line by line.

use std::io::{self, BufRead, Read};

/// Bytes of a line that are read on past what is kept of it. What has no end of a line for longer is no log, and may have no
/// end at all.
const MOST_SKIPPED: u64 = 64 << 20;

/// Reads a line, but no more of it than `most` bytes and one, by which it can be told that it was longer; `false` at the
/// end.
///
/// # Errors
/// When it cannot be read, or does not end.
pub(super) fn read_line(input: &mut impl BufRead, most: usize, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    if input.by_ref().take(most as u64 + 1).read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    if line.len() > most && line.last() != Some(&b'\n') {
        let mut rest = input.by_ref().take(MOST_SKIPPED);
        rest.skip_until(b'\n')?;
        if rest.limit() == 0 {
            let problem = format!("a line has more than {MOST_SKIPPED} bytes: this is no log");
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, repeat};

    #[test]
    fn a_line_has_a_limit() {
        let mut line = Vec::new();
        let mut lines = &b"short\nmuch longer\nlast"[..];
        for expected in ["short\n", "much lo", "last"] {
            assert!(read_line(&mut lines, 6, &mut line).unwrap());
            assert_eq!(line, expected.as_bytes());
        }
        assert!(!read_line(&mut lines, 6, &mut line).unwrap());
        let endless = read_line(&mut BufReader::new(repeat(0)), 6, &mut line).unwrap_err();
        assert!(endless.to_string().contains("no log"), "{endless}");
    }
}
