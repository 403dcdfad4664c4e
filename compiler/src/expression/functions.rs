//! The functions of the language: one table for the type checker, the folding and the lowering.

use halftone_rules::operator::{Binary, Unary};

/// What a function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An operation on one value.
    Unary(Unary),
    /// An operation on two strings.
    Strings(Binary),
    /// A part of a point in time or of a duration; with a second operand, in that time zone.
    Part(Unary),
    /// `duration("1h30m")`
    Duration,
    /// Search by a regular expression.
    Matches,
    /// Membership of an address in a network.
    Cidr,
    /// Bucket of a unit.
    Bucket,
    /// Presence of an attribute or of a map's key.
    Has,
}

/// A function.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// How it is called, for help.
    pub(crate) form: &'static str,
    /// Whether it may stand before its operands, and behind the first of them with a dot.
    style: Style,
    /// Number of operands, at least and at most.
    operands: (usize, usize),
}

#[derive(Debug, PartialEq, Eq)]
enum Style {
    Global,
    Method,
    Both,
}

impl Function {
    /// Whether it is called as it has to be.
    pub(crate) fn is_called_by(&self, method: bool, operands: usize) -> bool {
        let style = match self.style {
            Style::Global => !method,
            Style::Method => method,
            Style::Both => true,
        };
        style && (self.operands.0..=self.operands.1).contains(&operands)
    }
}

impl Kind {
    /// Whether the function has a value when its operands are constants. The others need what the evaluator
    /// has: automata, networks, the hash.
    pub(crate) fn folds(self) -> bool {
        !matches!(self, Self::Matches | Self::Cidr | Self::Bucket)
    }
}

/// The function of a name.
pub(crate) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

/// The names of all functions.
pub(crate) fn names() -> impl Iterator<Item = &'static str> + Clone {
    FUNCTIONS.iter().map(|function| function.name)
}

/// What CEL or its common extensions have and this language does not, with the reason.
pub(crate) fn left_out(name: &str) -> Option<&'static str> {
    Some(match name {
        "all" | "exists" | "exists_one" | "existsOne" | "map" | "filter" | "transformList"
        | "transformMap" => {
            "macros are left out: their work would not be bounded; use `in`, or one rule for each case"
        }
        "dyn" | "type" => "types are static: there is nothing to ask for when a request is decided",
        "lowerAscii" | "upperAscii" | "replace" | "split" | "join" | "substring" | "trim" | "format"
        | "charAt" | "reverse" | "quote" => {
            "making new strings would need memory for each request; `matches` has (?i) for letters of either case"
        }
        "indexOf" | "lastIndexOf" => "use `contains`, `startsWith`, `endsWith` or `matches`",
        "bind" | "block" => {
            "`cel.bind` and `cel.block` are left out; equal parts of conditions are evaluated once anyway"
        }
        "optional" | "of" | "none" | "ofNonZeroValue" | "orValue" | "hasValue" | "optMap" | "optFlatMap" => {
            "optional values are left out; use `has(a.b) ? a.b : …`"
        }
        "ip" | "isIP" | "isCIDR" | "containsIP" | "containsCIDR" => "use cidr(address, \"10.0.0.0/8\")",
        "isSemver" | "isLessThan" | "isGreaterThan" | "compareTo" | "major" | "minor" | "patch" => {
            "versions are compared with operators: semver(app.version) >= semver(\"1.2.3\")"
        }
        _ => return None,
    })
}

/// What to write instead of a function of another language.
pub(crate) fn other_spelling(name: &str) -> Option<&'static str> {
    Some(match name.to_ascii_lowercase().as_str() {
        "not" => "write `!`",
        "and" => "write `&&` between the two",
        "or" => "write `||` between the two",
        "len" | "length" | "count" => "write size(x)",
        "random" | "rand" | "sample" | "percentage" | "rollout" => {
            "a share of the units is the rule's `weight`: 0.1 takes a tenth of them"
        }
        "hash" | "md5" | "sha1" | "sha256" | "crc32" | "fnv" | "murmur" | "murmur3" => {
            "a share of the units is the rule's `weight`; a bucket in a condition is bucket(user.id, \"seed\", 100)"
        }
        "now" | "today" | "time" | "date" => "write `now`, without parentheses",
        "regex" | "match" | "regexp" => "write text.matches(\"^expression$\")",
        "defined" | "isset" | "exists" => "write has(a.b)",
        "isempty" | "empty" => "write text == \"\"",
        "float" => "write double(x)",
        "integer" => "write int(x)",
        "str" => "write string(x)",
        "boolean" => "write bool(x)",
        _ => return None,
    })
}

macro_rules! functions {
    ($( $name:literal $style:ident $min:literal..=$max:literal $kind:expr, $form:literal; )+) => {
        const FUNCTIONS: &[Function] = &[$( Function {
            name: $name, kind: $kind, form: $form, style: Style::$style, operands: ($min, $max),
        }, )+];
    };
}

functions! {
    "startsWith" Method 2..=2 Kind::Strings(Binary::StartsWith), "text.startsWith(\"part\")";
    "endsWith" Method 2..=2 Kind::Strings(Binary::EndsWith), "text.endsWith(\"part\")";
    "contains" Method 2..=2 Kind::Strings(Binary::Contains), "text.contains(\"part\")";
    "matches" Both 2..=2 Kind::Matches, "text.matches(\"^expression$\")";
    "size" Both 1..=1 Kind::Unary(Unary::Size), "size(text) or text.size()";
    "has" Global 1..=1 Kind::Has, "has(a.b)";
    "int" Global 1..=1 Kind::Unary(Unary::ToInt), "int(value)";
    "uint" Global 1..=1 Kind::Unary(Unary::ToUint), "uint(value)";
    "double" Global 1..=1 Kind::Unary(Unary::ToDouble), "double(value)";
    "bool" Global 1..=1 Kind::Unary(Unary::ToBool), "bool(value)";
    "string" Global 1..=1 Kind::Unary(Unary::ToString), "string(value)";
    "bytes" Global 1..=1 Kind::Unary(Unary::ToBytes), "bytes(value)";
    "timestamp" Global 1..=1 Kind::Unary(Unary::ToTimestamp), "timestamp(\"2026-01-31T08:00:00Z\")";
    "duration" Global 1..=1 Kind::Duration, "duration(\"1h30m\")";
    "semver" Global 1..=1 Kind::Unary(Unary::ToSemver), "semver(\"1.2.3\")";
    "cidr" Global 2..=2 Kind::Cidr, "cidr(address, \"10.0.0.0/8\")";
    "bucket" Global 3..=3 Kind::Bucket, "bucket(user.id, \"seed\", 100)";
    "getFullYear" Method 1..=2 Kind::Part(Unary::FullYear), "now.getFullYear() or now.getFullYear(\"+02:00\")";
    "getMonth" Method 1..=2 Kind::Part(Unary::Month), "now.getMonth() or now.getMonth(\"+02:00\")";
    "getDate" Method 1..=2 Kind::Part(Unary::Date), "now.getDate() or now.getDate(\"+02:00\")";
    "getDayOfMonth" Method 1..=2 Kind::Part(Unary::DayOfMonth), "now.getDayOfMonth() or now.getDayOfMonth(\"+02:00\")";
    "getDayOfWeek" Method 1..=2 Kind::Part(Unary::DayOfWeek), "now.getDayOfWeek() or now.getDayOfWeek(\"+02:00\")";
    "getDayOfYear" Method 1..=2 Kind::Part(Unary::DayOfYear), "now.getDayOfYear() or now.getDayOfYear(\"+02:00\")";
    "getHours" Method 1..=2 Kind::Part(Unary::Hours), "now.getHours() or now.getHours(\"+02:00\")";
    "getMinutes" Method 1..=2 Kind::Part(Unary::Minutes), "now.getMinutes() or now.getMinutes(\"+02:00\")";
    "getSeconds" Method 1..=2 Kind::Part(Unary::Seconds), "now.getSeconds() or now.getSeconds(\"+02:00\")";
    "getMilliseconds" Method 1..=2 Kind::Part(Unary::Milliseconds), "now.getMilliseconds() or now.getMilliseconds(\"+02:00\")";
}
