//! Reads logs line by line.

use std::io::{self, BufRead, Read};

/// Reads a line, but no more of it than `most` bytes and one, by which it can be told that it was longer; `false` at the
/// end.
///
/// # Errors
/// When it cannot be read.
pub(super) fn read_line(input: &mut impl BufRead, most: usize, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    if input.by_ref().take(most as u64 + 1).read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    if line.len() > most && line.last() != Some(&b'\n') {
        input.skip_until(b'\n')?;
    }
    Ok(true)
}
