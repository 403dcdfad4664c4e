//! W3C Trace Context, level 2: is a `traceparent` valid, and how to make one.

/// Length of a version 00 `traceparent`.
pub const TRACEPARENT_LENGTH: usize = 55;

/// Whether the header continues a trace. A higher version is read by the rule of forward compatibility.
#[must_use]
pub fn is_valid_traceparent(value: &[u8]) -> bool {
    let Some((fields, rest)) = value.split_at_checked(TRACEPARENT_LENGTH) else {
        return false;
    };
    let mut fields = fields.splitn(4, |&byte| byte == b'-');
    let (Some(version), Some(trace), Some(parent), Some(flags)) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return false;
    };
    let well_formed = [(version, 2), (trace, 32), (parent, 16), (flags, 2)]
        .iter()
        .all(|(field, length)| field.len() == *length && field.iter().all(is_lower_hex));
    let ends = if version == b"00" { rest.is_empty() } else { rest.is_empty() || rest.starts_with(b"-") };
    well_formed && ends && version != b"ff" && !is_zero(trace) && !is_zero(parent)
}

/// Starts a trace from random bytes: sampled, and marked as having a random trace id.
#[must_use]
pub fn new_traceparent(random: &[u8; 24]) -> String {
    let mut value = String::with_capacity(TRACEPARENT_LENGTH);
    value.push_str("00-");
    let (trace, parent) = random.split_at(16);
    push_id(&mut value, trace);
    value.push('-');
    push_id(&mut value, parent);
    value.push_str("-03");
    value
}

/// An all-zero id is not allowed, so such a draw ends in 1 instead.
fn push_id(value: &mut String, id: &[u8]) {
    let zero = id.iter().all(|&byte| byte == 0);
    for (index, &byte) in id.iter().enumerate() {
        let byte = if zero && index + 1 == id.len() { 1 } else { byte };
        for nibble in [byte >> 4, byte & 0xf] {
            value.push(char::from_digit(nibble.into(), 16).unwrap_or('0'));
        }
    }
}

fn is_lower_hex(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn is_zero(id: &[u8]) -> bool {
    id.iter().all(|&byte| byte == b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for valid in [good, &good.replace("00-0", "cc-0"), &format!("{}-what", good.replace("00-0", "cc-0"))]
        {
            assert!(is_valid_traceparent(valid.as_bytes()), "{valid}");
        }
        for invalid in [
            "",
            "00",
            &good[..54],
            &good.to_uppercase(),
            &good.replace("00-0", "ff-0"),
            &format!("{good}-what"),
            &format!("{}what", good.replace("00-0", "cc-0")),
            &good.replace("0af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000"),
            &good.replace("b7ad6b7169203331", "0000000000000000"),
            &good.replace("-01", "-0x"),
            &good.replace('-', "_"),
        ] {
            assert!(!is_valid_traceparent(invalid.as_bytes()), "{invalid}");
        }
        assert!(!is_valid_traceparent(&[0xff; 55]));
    }

    proptest::proptest! {
        #[test]
        fn a_new_traceparent_is_valid(random: [u8; 24]) {
            let value = new_traceparent(&random);
            proptest::prop_assert!(is_valid_traceparent(value.as_bytes()), "{}", value);
        }

        #[test]
        fn any_bytes_are_judged_without_panic(bytes: Vec<u8>) {
            let _ = is_valid_traceparent(&bytes);
        }
    }

    #[test]
    fn a_zero_draw_is_avoided() {
        assert!(is_valid_traceparent(new_traceparent(&[0; 24]).as_bytes()));
    }
}
