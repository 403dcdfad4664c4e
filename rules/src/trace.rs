//! W3C Trace Context, level 2: is a trace to be continued, and how to start one.
//!
//! Who passes a valid `traceparent` on unchanged must not change `tracestate` either; it may only drop one that does
//! not parse.

/// The header with the trace's id.
pub const TRACEPARENT: &str = "traceparent";
/// The header with what vendors add to it.
pub const TRACESTATE: &str = "tracestate";

/// Length of a version 00 `traceparent`.
pub const TRACEPARENT_LENGTH: usize = 55;

/// Members that a `tracestate` may have.
const MAX_MEMBERS: usize = 32;
/// Characters of a member's key, and of its value.
const MAX_PART: usize = 256;

/// Whether a `tracestate` parses. Several header lines are one list, in order; members may be empty.
#[must_use]
pub fn is_valid_tracestate<'a>(lines: impl Iterator<Item = &'a [u8]>) -> bool {
    let members =
        lines.flat_map(|line| line.split(|&byte| byte == b',')).map(trim).filter(|member| !member.is_empty());
    let mut count = 0usize;
    for member in members {
        count = count.saturating_add(1);
        if count > MAX_MEMBERS || !is_member(member) {
            return false;
        }
    }
    true
}

/// Without the blanks and tabs around it.
pub(crate) fn trim(mut member: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = member {
        member = rest;
    }
    member
}

/// `key=value`.
fn is_member(member: &[u8]) -> bool {
    let Some(equals) = member.iter().position(|&byte| byte == b'=') else { return false };
    let (key, value) = (member.get(..equals).unwrap_or_default(), member.get(equals..).unwrap_or_default());
    let value = value.strip_prefix(b"=").unwrap_or_default();
    let first = key.first().is_some_and(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'));
    let rest = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let printable = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=');
    first
        && key.len() <= MAX_PART
        && key.iter().all(rest)
        && !value.is_empty()
        && value.len() <= MAX_PART
        && value.iter().all(printable)
}

/// Whether the header continues a trace. A higher version is read by the rule of forward compatibility.
#[must_use]
pub fn is_valid_traceparent(value: &[u8]) -> bool {
    let Some((fields, rest)) = value.split_at_checked(TRACEPARENT_LENGTH) else {
        return false;
    };
    let part = |range| fields.get(range).unwrap_or_default();
    let (version, trace, parent, flags) = (part(0..2), part(3..35), part(36..52), part(53..55));
    let well_formed = [2, 35, 52].iter().all(|&at| fields.get(at) == Some(&b'-'))
        && [version, trace, parent, flags].iter().all(|field| field.iter().all(is_lower_hex));
    let ends = if version == b"00" { rest.is_empty() } else { rest.is_empty() || rest.starts_with(b"-") };
    well_formed && ends && version != b"ff" && !is_zero(trace) && !is_zero(parent)
}

/// Starts a trace from random bytes, marked as having a random id, and sampled if it is among so large a share of all.
///
/// Its parent is the end of its id: so whoever is first to record a span of it knows that nobody has recorded that one,
/// see [`began_here`].
#[must_use]
pub fn new_traceparent(random: &[u8; 16], share: f64) -> String {
    let mut value = String::with_capacity(TRACEPARENT_LENGTH);
    value.push_str("00-");
    let mut id = *random;
    // An all-zero id is not allowed.
    if let [.., last] = &mut id
        && random.iter().skip(8).all(|&byte| byte == 0)
    {
        *last = 1;
    }
    push_hex(&mut value, &id);
    value.push('-');
    push_hex(&mut value, id.split_at(8).1);
    value.push_str(if is_sampled(&id, share) { "-03" } else { "-02" });
    value
}

/// Whether a trace of this id began with a [`new_traceparent`] that names this parent: a span that nobody records.
#[must_use]
pub fn began_here(trace: &[u8; 16], parent: &[u8; 8]) -> bool {
    trace.split_at(8).1 == parent
}

/// Whether a trace is among so large a share of all, by the last seven bytes of its id, which are random. Who asks with a larger
/// share gets all of a smaller one, too.
#[must_use]
pub fn is_sampled(trace: &[u8; 16], share: f64) -> bool {
    let random = trace.iter().skip(9).fold(0u64, |number, &byte| number << 8 | u64::from(byte));
    // So many bits are exact in a double.
    #[allow(clippy::cast_precision_loss, reason = "52 bits")]
    let place = (random >> 4) as f64 / (1u64 << 52) as f64;
    // The large numbers are sampled, as OpenTelemetry's consistent sampling has it.
    place >= 1.0 - share
}

fn push_hex(value: &mut String, id: &[u8]) {
    for &byte in id {
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

    #[test]
    fn tracestates() {
        let long = "k".repeat(256);
        let lines = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        let cases: [(&[&str], bool); 24] = [
            (&[], true),
            (&[""], true),
            (&[",", " , \t,"], true),
            (&["foo=1"], true),
            (&["foo=1,bar=2", "rojo=1, congo=2"], true),
            (&["foo=1 \t , \t bar=2, \t baz=3"], true),
            (&["foo=1,foo=2"], true),
            (&["foo=1", "", "bar=2"], true),
            (&["0f@o-_*/=  1!~"], true),
            (&[&format!("{long}={long}")], true),
            (&[&lines(32)], true),
            (&[&lines(20), &lines(12)], true),
            (&[&lines(33)], false),
            (&[&lines(20), &lines(13)], false),
            (&[&format!("k{long}=v")], false),
            (&[&format!("k=v{long}")], false),
            (&["foo"], false),
            (&["foo="], false),
            (&["=1"], false),
            (&["Foo=1"], false),
            (&["_foo=1"], false),
            (&["foo =1"], false),
            (&["foo=1=2"], false),
            (&["foo=bar\tbaz"], false),
        ];
        for (lines, expected) in cases {
            let valid = is_valid_tracestate(lines.iter().map(|line| line.as_bytes()));
            assert_eq!(valid, expected, "{lines:?}");
        }
        assert!(!is_valid_tracestate([&b"foo=\xff"[..]].into_iter()));
    }

    proptest::proptest! {
        #[test]
        fn a_new_traceparent_is_valid(random: [u8; 16], share in 0.0..=1.0) {
            let value = new_traceparent(&random, share);
            proptest::prop_assert!(is_valid_traceparent(value.as_bytes()), "{}", value);
        }

        #[test]
        fn any_bytes_are_judged_without_panic(bytes: Vec<u8>) {
            let _ = is_valid_traceparent(&bytes);
            let _ = is_valid_tracestate([bytes.as_slice(), bytes.as_slice()].into_iter());
        }
    }

    #[test]
    fn a_share_of_traces_is_sampled_and_a_larger_one_has_all_of_a_smaller_one() {
        let trace = |number: u64| {
            // Spread over all of the random part.
            let mut id = [7; 16];
            id[8..].copy_from_slice(&(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes());
            id
        };
        let sampled = |share: f64| -> Vec<u64> {
            (0..10_000).filter(|&number| is_sampled(&trace(number), share)).collect()
        };
        assert_eq!((sampled(0.0).len(), sampled(1.0).len()), (0, 10_000));
        let (few, many) = (sampled(0.01), sampled(0.2));
        assert!((80..120).contains(&few.len()) && (1_900..2_100).contains(&many.len()), "{}", few.len());
        assert!(few.iter().all(|number| many.contains(number)));
        for number in 0..100 {
            let begun = new_traceparent(&trace(number), 0.2);
            assert_eq!(begun.ends_with("-03"), many.contains(&number), "{begun}");
            assert_eq!(begun.get(19..35), begun.get(36..52), "the parent is the end of the id: {begun}");
        }
    }

    #[test]
    fn where_a_trace_began_is_seen_by_its_parent() {
        let trace = *b"\x01\x02\x03\x04\x05\x06\x07\x08abcdefgh";
        assert!(began_here(&trace, b"abcdefgh") && !began_here(&trace, b"abcdefgi"));
    }

    #[test]
    fn a_zero_draw_is_avoided() {
        assert!(is_valid_traceparent(new_traceparent(&[0; 16], 1.0).as_bytes()));
    }
}
