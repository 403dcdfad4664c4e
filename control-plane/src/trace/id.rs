//! What a request is asked after by.

use std::{fmt, str::FromStr};

/// What a request is asked after by: both are parts of the `traceparent` that its backend got. As a text a whole one is a trace, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id {
    /// The trace: all of its requests.
    Trace([u8; 16]),
    /// The evaluation: the span in which the decision was taken.
    Evaluation([u8; 8]),
}

/// A text that is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no id: 32 hexadecimal digits (a trace), 16 (an evaluation), not all of them 0, or a `traceparent` (its trace) are expected"
)]
pub struct BadId(String);

impl FromStr for Id {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        // As it was cut out of a response.
        let trimmed = text.trim();
        let id = match *trimmed.split('-').collect::<Vec<_>>() {
            [trace] if trace.len() == 32 => bytes(trace).map(Self::Trace),
            [evaluation] if evaluation.len() == 16 => bytes(evaluation).map(Self::Evaluation),
            // Its span may be the client's own, of which nothing is known here. Later versions may have more parts.
            [version, trace, span, flags, ..] => {
                let is_one = digits(version, 2) && digits(flags, 2) && bytes::<8>(span).is_some();
                bytes(trace).map(Self::Trace).filter(|_| is_one)
            }
            _ => None,
        };
        // No more of it than can be read.
        id.ok_or_else(|| BadId(text.chars().take(64).collect()))
    }
}

impl Id {
    /// Its digits, in lower case.
    #[must_use]
    pub fn digits(&self) -> String {
        match self {
            Self::Trace(id) => hexadecimal(id),
            Self::Evaluation(id) => hexadecimal(id),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Trace(_) => "trace",
            Self::Evaluation(_) => "evaluation",
        };
        write!(f, "{what} {}", self.digits())
    }
}

/// Bytes as lower-case digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digits(text: &str, count: usize) -> bool {
    text.len() == count && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    // `from_str_radix` would take a sign.
    digits(text, 2 * N).then_some(())?;
    let number = u128::from_str_radix(text, 16).ok().filter(|number| *number > 0)?;
    number.to_be_bytes().last_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_two_parts_of_a_traceparent() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let Ok(Id::Trace(id)) = trace.parse() else { panic!("{trace}") };
        assert_eq!((id[0], id[15], hexadecimal(&id)), (0x0a, 0x9c, trace.to_owned()));
        assert_eq!(trace.to_uppercase().parse(), Ok(Id::Trace(id)));
        let evaluation = "00f067aa0ba902b7";
        assert_eq!(evaluation.parse::<Id>().unwrap().to_string(), format!("evaluation {evaluation}"));
        let parent = |trace: &str| format!("00-{trace}-{evaluation}-01");
        let later = parent(trace).replacen("00", "01", 1) + "-more";
        for text in [parent(trace), later, format!(" {trace}\r\n")] {
            assert_eq!(text.parse(), Ok(Id::Trace(id)), "{text:?}");
        }
        let zeros = [
            "0".repeat(32),
            "0".repeat(16),
            parent(&"0".repeat(32)),
            parent(&trace[1..]),
            parent(trace).replacen("00", "zz", 1),
        ];
        let bad = ["", "7", "+0f067aa0ba902b7", "00f067aa0ba902bg", "00f067aa0ba902b77", "--", &trace[1..]];
        for text in bad.into_iter().chain(zeros.iter().map(String::as_str)) {
            let error = text.parse::<Id>().unwrap_err().to_string();
            assert!(error.contains("32 hexadecimal digits (a trace), 16 (an evaluation)"), "{error}");
        }
        assert!("x".repeat(100_000).parse::<Id>().unwrap_err().to_string().len() < 400);
    }
}
