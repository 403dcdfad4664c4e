//! What a release says of a metric that a Prometheus server has.

use crate::release::spec::duration;
use serde::Deserialize;
use std::{ops::RangeInclusive, time::Duration};

/// Stands for the target in selectors.
const TARGET: &str = "$target";
/// Characters of a selector at most.
const LONGEST: usize = 1_000;
/// Blocks that make sense: shorter ones hold no scrape, longer ones take days until anything can be said.
const BLOCKS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

/// A ratio of two counters, by target.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ratio {
    /// What is divided: errors, or the sum of latencies.
    pub numerator: Selector,
    /// What it is divided by: requests.
    pub denominator: Selector,
    /// The time that is one unit.
    #[serde(default = "quarter_minute", deserialize_with = "duration::deserialize")]
    pub block: Duration,
}

/// How often Prometheus scrapes in most installations.
fn quarter_minute() -> Duration {
    Duration::from_secs(15)
}

impl Ratio {
    /// What is wrong with it besides its form.
    pub(in crate::release) fn problem(&self) -> Option<String> {
        (!BLOCKS.contains(&self.block)).then(|| {
            format!(
                "a `block` of {} is none: give 100ms to 1h, and no less than the scrape interval",
                duration::text(self.block)
            )
        })
    }

    /// Milliseconds of a block.
    pub(super) fn block_ms(&self) -> u64 {
        u64::try_from(self.block.as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// An instant-vector selector of counters, in which `$target` stands for a target.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Selector(String);

impl TryFrom<String> for Selector {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("a selector of {} characters, and {LONGEST} are possible", text.len()));
        }
        fill(&text, "target")?;
        Ok(Self(text))
    }
}

impl Selector {
    /// The selector of one target's counters.
    ///
    /// # Errors
    /// Never for a selector that was read: reading it went the same way.
    pub(super) fn of(&self, target: &str) -> Result<String, String> {
        fill(&self.0, target)
    }
}

/// Reads a selector, and puts the target in. A release's text chooses series and nothing else: what is no selector is
/// refused, so that increases are always computed here.
fn fill(text: &str, target: &str) -> Result<String, String> {
    let mut rest = Rest { text, at: 0 };
    rest.space();
    rest.word(":");
    rest.space();
    let mut filled = String::from(rest.before());
    let mut names_target = false;
    if !rest.eat("{") {
        return Err(rest.wrong("`{`, as in `http_requests_total{target=\"$target\"}`"));
    }
    filled.push('{');
    loop {
        rest.space();
        if rest.eat("}") {
            break;
        }
        let label = rest.word("");
        if label.is_empty() {
            return Err(rest.wrong("a label, or `}`"));
        }
        rest.space();
        let Some(operator) = ["=~", "!~", "!=", "="].into_iter().find(|operator| rest.eat(operator)) else {
            return Err(rest.wrong("`=`, `!=`, `=~` or `!~`"));
        };
        rest.space();
        let value = rest.quoted()?;
        names_target |= value.contains(TARGET) && operator.starts_with('=');
        // Names of targets have letters, digits, `_`, `-`, and `.`, which regular expressions take for anything.
        let escaped = if operator.ends_with('~') { target.replace('.', "\\\\.") } else { target.to_owned() };
        filled.push_str(&format!("{label}{operator}{},", value.replace(TARGET, &escaped)));
        rest.space();
        if !rest.eat(",") && !rest.left().starts_with('}') {
            return Err(rest.wrong("`,` or `}`"));
        }
    }
    rest.space();
    if !rest.left().is_empty() {
        return Err(
            rest.wrong("nothing after `}`: ranges, offsets and functions are not for a release to say")
        );
    }
    if !names_target {
        return Err(format!("no label is equal to `{TARGET}`: both arms would have the same numbers"));
    }
    filled.push('}');
    Ok(filled)
}

/// What of a text was not read yet.
struct Rest<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Rest<'a> {
    fn left(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn before(&self) -> &'a str {
        self.text.get(..self.at).unwrap_or_default().trim()
    }

    fn eat(&mut self, wanted: &str) -> bool {
        let found = self.left().starts_with(wanted);
        self.at += if found { wanted.len() } else { 0 };
        found
    }

    fn space(&mut self) {
        let left = self.left();
        self.at += left.len() - left.trim_start().len();
    }

    /// A name; empty when there is none.
    fn word(&mut self, more: &str) -> &'a str {
        let left = self.left();
        let is_of = |c: char| c.is_ascii_alphanumeric() || c == '_' || more.contains(c);
        let length = left.find(|c| !is_of(c)).unwrap_or(left.len());
        let word = left.get(..length).unwrap_or_default();
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return "";
        }
        self.at += length;
        word
    }

    /// A text in quotes, with them.
    fn quoted(&mut self) -> Result<&'a str, String> {
        let left = self.left();
        let Some(quote) = left.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            return Err(self.wrong("a value in double quotes"));
        };
        let mut escaped = false;
        for (index, c) in left.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                _ if c == quote => {
                    self.at += index + 1;
                    return Ok(left.get(..=index).unwrap_or_default());
                }
                _ => {}
            }
        }
        Err(self.wrong("a value whose quotes are closed"))
    }

    fn wrong(&self, wanted: &str) -> String {
        let found: String = self.left().chars().take(12).collect();
        let found = if found.is_empty() { "the end".to_owned() } else { format!("`{found}`") };
        format!(
            "a selector of counters is expected: at character {} there is {found} instead of {wanted}",
            self.at + 1
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn targets_are_put_in_so_that_they_stand_for_themselves() {
        for (text, wanted) in [
            (r#"a_total{target="$target"}"#, r#"a_total{target="v1.2",}"#),
            (r#" a:b { target = '$target' , code =~ "5..", } "#, r#"a:b{target='v1.2',code=~"5..",}"#),
            (
                r#"{__name__="a",t=~"x-$target-.*",t!~"y\"}"}"#,
                r#"{__name__="a",t=~"x-v1\\.2-.*",t!~"y\"}",}"#,
            ),
        ] {
            assert_eq!(Selector::try_from(text.to_owned()).unwrap().of("v1.2").unwrap(), wanted);
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for (text, wanted) in [
            ("", "the end"),
            ("a_total", "instead of `{`"),
            (r#"rate(a{t="$target"}[1m])"#, "`(a{t=\"$targe`"),
            (r#"a{t="$target"}[1m]"#, "ranges"),
            (r#"a{t="$target"} offset 5m"#, "nothing after"),
            (r#"a{t="$target"} or b"#, "nothing after"),
            (r#"a{t="v1"}"#, "no label is equal"),
            (r#"a{t!="$target"}"#, "no label is equal"),
            (r#"a{t=$target}"#, "in double quotes"),
            (r#"a{t="$target}"#, "closed"),
            (r#"a{t="$target" b="c"}"#, "`,` or `}`"),
            (r#"a{1t="$target"}"#, "a label"),
            (r#"a{t>"$target"}"#, "`=~`"),
        ] {
            let refused = Selector::try_from(text.to_owned()).expect_err(text);
            assert!(refused.contains(wanted), "{text}: {refused}");
        }
        assert!(Selector::try_from("a".repeat(1_001)).expect_err("long").contains("1001 characters"));
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in ".{0,60}") {
            let _ = Selector::try_from(text);
        }

        #[test]
        fn no_text_gets_out_of_a_selector(text in r#"[a-z{}"'\\$=~!,()\[\] ]{0,40}"#) {
            if let Ok(selector) = Selector::try_from(format!("a{{t=\"$target\",{text}}}")) {
                let filled = selector.of("v1").unwrap();
                prop_assert!(filled.ends_with('}'), "{}", filled);
                prop_assert!(filled.starts_with("a{t=\"v1\","), "{}", filled);
            }
        }
    }
}
