//! Numbers as text, where the machinery of `format!` would cost more than all the rest of a request.

/// Room for the longest number.
const DIGITS: usize = 20;

/// Appends the decimal digits of a number.
pub(crate) fn push_decimal(text: &mut Vec<u8>, mut number: u64) {
    let mut digits = [b'0'; DIGITS];
    let mut start = DIGITS;
    loop {
        start = start.saturating_sub(1);
        if let Some(digit) = digits.get_mut(start) {
            // A digit fits.
            *digit = b'0'.wrapping_add((number % 10).to_le_bytes()[0]);
        }
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.extend_from_slice(digits.get(start..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_format_writes_them() {
        for number in [0, 7, 10, 99, 100, 1_234_567_890, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut text = b"x".to_vec();
            push_decimal(&mut text, number);
            assert_eq!(String::from_utf8(text).unwrap(), format!("x{number}"));
        }
    }
}
