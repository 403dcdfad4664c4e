//! What becomes of a client's trace by W3C Trace Context, level 2, as a table: the tests of the filter module and those
//! on real Envoy go through the same rows.

/// A client's headers, and what they have to become.
pub struct TraceCase {
    /// What the row is about.
    pub name: &'static str,
    /// Lines of `traceparent` and `tracestate`, in order.
    pub sent: Vec<(&'static str, String)>,
    /// Whether the trace goes on, with `traceparent` as it came; otherwise a new one begins.
    pub continued: bool,
    /// What is left of `tracestate`, line by line.
    pub state: Vec<String>,
}

/// A valid `traceparent`.
pub const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// All rows.
#[must_use]
pub fn trace_cases() -> Vec<TraceCase> {
    let mut cases = Vec::new();
    let mut row = |name, parents: &[&str], states: &[&str], continued, state: &[&str]| {
        let line = |name: &'static str| move |value: &&str| (name, (*value).to_owned());
        let sent =
            parents.iter().map(line("traceparent")).chain(states.iter().map(line("tracestate"))).collect();
        let state = state.iter().map(|line| (*line).to_owned()).collect();
        cases.push(TraceCase { name, sent, continued, state });
    };
    const GOOD: &str = TRACEPARENT;
    let changed = |from: &str, to: &str| GOOD.replacen(from, to, 1);

    // Which traces go on.
    row("nothing came", &[], &[], false, &[]);
    row("a sampled trace", &[GOOD], &[], true, &[]);
    row("one that is not sampled", &[&changed("-01", "-00")], &[], true, &[]);
    row("one with a random id", &[&changed("-01", "-03")], &[], true, &[]);
    row("one with flags that nobody knows", &[&changed("-01", "-ff")], &[], true, &[]);
    row("a higher version of today's length", &[&changed("00-", "01-")], &["a=1"], true, &["a=1"]);
    row(
        "a higher version with more fields",
        &[&format!("{}-what-ever", changed("00-", "cc-"))],
        &["a=1"],
        true,
        &["a=1"],
    );
    row("a higher version with an empty field", &[&format!("{}-", changed("00-", "cc-"))], &[], true, &[]);
    row(
        "a higher version that goes on without a dash",
        &[&format!("{}.what", changed("00-", "cc-"))],
        &["a=1"],
        false,
        &[],
    );
    row("a higher version that is too short", &[&changed("00-", "cc-")[..54]], &["a=1"], false, &[]);
    row("version 00 with more fields", &[&format!("{GOOD}-what")], &["a=1"], false, &[]);
    row("version 00 with a dash at its end", &[&format!("{GOOD}-")], &[], false, &[]);
    row("the version that is none", &[&changed("00-", "ff-")], &["a=1"], false, &[]);
    row("a version that is no number", &[&changed("00-", ".0-")], &[], false, &[]);
    row("a version of one digit", &[&GOOD[1..]], &[], false, &[]);
    row("capitals", &[&GOOD.to_uppercase()], &["a=1"], false, &[]);
    row(
        "a trace id of zeros",
        &[&changed("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32))],
        &[],
        false,
        &[],
    );
    row("a parent id of zeros", &[&changed("b7ad6b7169203331", &"0".repeat(16))], &["a=1"], false, &[]);
    row("a trace id that is too short", &[&changed("0af7", "af7")], &[], false, &[]);
    row("a trace id that is too long", &[&changed("0af7", "00af7")], &[], false, &[]);
    row("a trace id that is no number", &[&changed("0af7", "0af.")], &[], false, &[]);
    row("a parent id that is too short", &[&changed("-b7", "-7")], &[], false, &[]);
    row("a parent id that is no number", &[&changed("-b7", "-b.")], &[], false, &[]);
    row("flags that are no number", &[&changed("-01", "-.1")], &[], false, &[]);
    row("flags of one digit", &[&changed("-01", "-1")], &[], false, &[]);
    row("no flags", &[&changed("-01", "")], &[], false, &[]);
    row("other dashes", &[&GOOD.replace('-', "_")], &[], false, &[]);
    row("nothing in it", &[""], &["a=1"], false, &[]);
    row("the same twice", &[GOOD, GOOD], &["a=1"], false, &[]);
    row("a good and a bad one", &[GOOD, "00"], &["a=1"], false, &[]);
    row("two in one line", &[&format!("{GOOD},{GOOD}")], &["a=1"], false, &[]);

    // What is left of tracestate when the trace goes on.
    let members = |range: std::ops::Range<u8>| range.map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
    let long = "k".repeat(256);
    let kept: [(&str, &[&str]); 13] = [
        ("one member", &["a=1"]),
        ("members in order", &["b=2,a=1", "c=3"]),
        ("lines with blanks between members", &["a=1 , \tb=2", "c=3"]),
        ("empty members", &["a=1,,b=2,", "c=3"]),
        ("an empty line", &["a=1", "", "b=2"]),
        ("a key of a tenant", &["t0@v-e_n/d*r=1"]),
        ("a key that begins with a digit", &["1a=1"]),
        ("a value with blanks and signs", &["a=x y!\"#$%&'()*+-./:;<>?@[]^_`{|}~"]),
        ("a key twice, which is not ours to mend", &["a=1,a=2"]),
        ("the longest key and value", &[&format!("{long}={long}")]),
        ("thirty-two members", &[&members(0..32)]),
        ("thirty-two members in two lines", &[&members(0..20), &members(20..32)]),
        ("thirty-two members and empty ones", &[",", &members(0..32), ",,"]),
    ];
    for (name, lines) in kept {
        row(name, &[GOOD], lines, true, lines);
    }
    let dropped: [(&str, &[&str]); 14] = [
        ("thirty-three members", &[&members(0..33)]),
        ("thirty-three members in two lines", &[&members(0..20), &members(20..33)]),
        ("a key that is too long", &[&format!("k{long}=v")]),
        ("a value that is too long", &[&format!("k=v{long}")]),
        ("a key with a capital", &["a=1", "B=2"]),
        ("a key that begins with a sign", &["_a=1"]),
        ("a blank before the sign", &["a =1"]),
        ("a key with a dot", &["a.b=1"]),
        ("no key", &["=1"]),
        ("no value", &["a="]),
        ("no sign", &["a=1,b"]),
        ("two signs", &["a=1=2"]),
        ("other separators", &["a=1;b=2,c:3"]),
        ("a value beyond ASCII", &["a=\u{e9}"]),
    ];
    for (name, lines) in dropped {
        row(name, &[GOOD], lines, true, &[]);
    }
    row("a state without a trace", &[], &["a=1"], false, &[]);
    cases
}
