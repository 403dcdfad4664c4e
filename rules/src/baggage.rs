//! W3C Baggage: the decision for whoever follows the request, in members of our own.
//!
//! Baggage belongs to the client. Everything of it is passed on as it is, with the exception of members that bear our
//! names; and when ours do not fit into what everybody has to pass on, they are left out.

use crate::{decimal::push_decimal, trace::trim};

/// The header's name.
pub const HEADER: &str = "baggage";
/// The member with the target's name.
pub const TARGET: &str = "halftone.target";
/// The member with the revision of the rules.
pub const REVISION: &str = "halftone.revision";

/// What everybody has to pass on, over all lines of the header.
const MAX_MEMBERS: usize = 64;
/// See [`MAX_MEMBERS`].
const MAX_BYTES: usize = 8_192;

/// The header with our members at its end, in place of any that bear their names; `lines` are the values of the
/// request's `baggage` headers, in order, and `decision` is a target and the revision of the rules that chose it.
/// `None` when nothing is left to send.
#[must_use]
pub fn header_value<'a>(
    lines: impl Iterator<Item = &'a [u8]>,
    decision: Option<(&str, u64)>,
) -> Option<Vec<u8>> {
    // Room for ours; it grows with theirs.
    let mut header = Vec::with_capacity(128);
    let mut count = 0usize;
    let members = lines.flat_map(|line| line.split(|&byte| byte == b',')).map(trim);
    for member in members.filter(|member| !member.is_empty() && !is_ours(member)) {
        count = count.saturating_add(1);
        append(&mut header, member);
    }
    if let Some((target, revision)) = decision {
        let theirs = header.len();
        append(&mut header, TARGET.as_bytes());
        header.push(b'=');
        encode(&mut header, target);
        append(&mut header, REVISION.as_bytes());
        header.push(b'=');
        push_decimal(&mut header, revision);
        if count > MAX_MEMBERS - 2 || header.len() > MAX_BYTES {
            header.truncate(theirs);
        }
    }
    (!header.is_empty()).then_some(header)
}

fn append(header: &mut Vec<u8>, member: &[u8]) {
    if !header.is_empty() {
        header.push(b',');
    }
    header.extend_from_slice(member);
}

/// Whether what stands before the first `=` or `;` is a name of ours. Whatever is not visible around it is left out of
/// account: there are readers that strip more than blanks and tabs.
fn is_ours(member: &[u8]) -> bool {
    let key = member.split(|byte| matches!(byte, b'=' | b';')).next().unwrap_or_default();
    let first = key.iter().position(u8::is_ascii_graphic);
    let last = key.iter().rposition(u8::is_ascii_graphic);
    let key = first.zip(last).and_then(|(first, last)| key.get(first..=last)).unwrap_or_default();
    [TARGET, REVISION].iter().any(|name| name.as_bytes() == key)
}

/// Percent-encodes what a value must not contain.
fn encode(header: &mut Vec<u8>, value: &str) {
    let stays = |byte: u8| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'%' | b',' | b';' | b'\\');
    if value.bytes().all(stays) {
        // All names that the compiler lets through.
        return header.extend_from_slice(value.as_bytes());
    }
    for byte in value.bytes() {
        if stays(byte) {
            header.push(byte);
        } else {
            header.push(b'%');
            for nibble in [byte >> 4, byte & 0xf] {
                let digit = char::from_digit(nibble.into(), 16).unwrap_or('0').to_ascii_uppercase();
                header.push(u8::try_from(digit).unwrap_or(b'0'));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamped(lines: &[&str], decision: Option<(&str, u64)>) -> Option<String> {
        header_value(lines.iter().map(|line| line.as_bytes()), decision)
            .map(|header| String::from_utf8(header).unwrap())
    }

    fn with(lines: &[&str]) -> Option<String> {
        stamped(lines, Some(("v2", 7)))
    }

    #[test]
    fn our_members_stand_behind_what_there_is() {
        for (lines, expected) in [
            (&[][..], ""),
            (&["a=1"], "a=1,"),
            (&["a=1;p=2, b = 2 ", "", "c=%20,,d==="], "a=1;p=2,b = 2,c=%20,d===,"),
            (&["a=1,a=2"], "a=1,a=2,"),
            (&["halftone.target=v9", "a=1,halftone.revision;x=halftone.target"], "a=1,"),
            (&[" halftone.target = v9;secret , a=1"], "a=1,"),
            (&["\u{b}halftone.target\u{a0}=v9,\u{85}a\u{b}=1"], "\u{85}a\u{b}=1,"),
            (&["x-halftone.target=1"], "x-halftone.target=1,"),
        ] {
            let expected = format!("{expected}halftone.target=v2,halftone.revision=7");
            assert_eq!(with(lines).as_deref(), Some(expected.as_str()), "{lines:?}");
        }
    }

    #[test]
    fn values_are_encoded() {
        let header = stamped(&[], Some(("a\"b,c;d\\e%f g=\u{e9}", u64::MAX)));
        let expected =
            "halftone.target=a%22b%2Cc%3Bd%5Ce%25f%20g=%C3%A9,halftone.revision=18446744073709551615";
        assert_eq!(header.as_deref(), Some(expected));
    }

    #[test]
    fn without_a_decision_nobody_speaks_in_our_name() {
        assert_eq!(stamped(&["a=1,halftone.target=v9", "halftone.revision=1"], None).as_deref(), Some("a=1"));
        assert_eq!(stamped(&["halftone.target=v9"], None), None);
        assert_eq!(stamped(&[], None), None);
    }

    #[test]
    fn what_has_to_be_passed_on_comes_first() {
        let members = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        assert!(with(&[&members(62)]).unwrap().ends_with(",halftone.revision=7"));
        // Ours come whole or not at all, and what the client sent stays, even what is more than it may be.
        for count in [63, 64, 100] {
            assert_eq!(with(&[&members(count)]), Some(members(count)));
        }
        let ours = ",halftone.target=v2,halftone.revision=7".len();
        let filled = |bytes: usize| format!("k={}", "v".repeat(bytes - 2));
        assert_eq!(with(&[&filled(MAX_BYTES - ours)]).unwrap().len(), MAX_BYTES);
        for bytes in [MAX_BYTES - ours + 1, MAX_BYTES, MAX_BYTES + 10] {
            assert_eq!(with(&[&filled(bytes)]), Some(filled(bytes)));
        }
        // A copy of ours does not get through, whether there is room or not.
        assert_eq!(with(&[&members(64), "halftone.target=v9"]), Some(members(64)));
    }

    proptest! {
        #[test]
        fn any_bytes_stay_in_order(lines: Vec<Vec<u8>>) {
            let header = header_value(lines.iter().map(Vec::as_slice), Some(("v2", 7))).unwrap_or_default();
            let members = |bytes: &[u8]| -> Vec<Vec<u8>> {
                bytes
                    .split(|&byte| byte == b',')
                    .map(|member| trim(member).to_vec())
                    .filter(|member| !member.is_empty() && !is_ours(member))
                    .collect()
            };
            prop_assert_eq!(members(&header), members(&lines.join(&b','))) ;
        }
    }
}
