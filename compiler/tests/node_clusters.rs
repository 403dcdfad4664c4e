//! Rulesets that are for some clusters of proxies only.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use halftone_compiler::{Code, Compiled, Member, compile, conflicts, link};

fn ruleset(name: &str, scope: &str) -> (String, Compiled) {
    let text = format!("version: v1\nmatch: {{{scope}}}\nrules: []\n");
    let compiled = compile(&text, name).unwrap();
    (text, compiled)
}

fn problem(scope: &str) -> Code {
    compile(&format!("version: v1\nmatch: {{{scope}}}\nrules: []\n"), "r").unwrap_err()[0].code
}

#[test]
fn a_ruleset_is_for_the_clusters_that_it_names_or_for_all() {
    let (_, named) = ruleset("a", "node_clusters: [eu, \"us west/1\"]");
    assert!(named.is_for(Some("eu")) && named.is_for(Some("us west/1")));
    assert!(!named.is_for(Some("asia")) && !named.is_for(None));
    let (_, all) = ruleset("b", "hosts: [example.com]");
    assert!(all.is_for(Some("eu")) && all.is_for(None));
}

#[test]
fn names_of_clusters_are_checked() {
    assert_eq!(problem("node_clusters: []"), Code::WrongForm);
    assert_eq!(problem("node_clusters: eu"), Code::WrongForm);
    assert_eq!(problem("node_clusters: ['']"), Code::InvalidName);
    assert_eq!(problem("node_clusters: [\"a\\nb\"]"), Code::InvalidName);
    assert_eq!(problem("node_clusters: [eu, eu]"), Code::DuplicateName);
    assert_eq!(problem("node_cluster: [eu]"), Code::UnknownField);
    let many: Vec<String> = (0..33).map(|number| format!("c{number}")).collect();
    assert_eq!(problem(&format!("node_clusters: [{}]", many.join(", "))), Code::TooLarge);
}

#[test]
fn only_rulesets_that_meet_on_a_proxy_are_in_each_others_way() {
    let rulesets = [
        ruleset("a", "node_clusters: [eu]"),
        ruleset("b", "node_clusters: [us]"),
        // With the second one alone.
        ruleset("c", "node_clusters: [us, asia]"),
        // With the third one alone.
        ruleset("d", "node_clusters: [asia, africa]"),
        ruleset("e", "hosts: [example.com]"),
        ruleset("f", "hosts: [example.com], node_clusters: [eu]"),
    ];
    let members: Vec<Member<'_>> =
        rulesets.iter().map(|(text, compiled)| Member { file: "x", text, compiled }).collect();
    let found = conflicts(&members);
    let messages: Vec<Vec<&str>> =
        found.iter().map(|found| found.iter().map(|found| &*found.message).collect()).collect();
    let same = |name: &str, host: &str| format!("`{name}` in x governs the same requests: {host}, any path");
    let (b, c, e) = (same("b", "any host"), same("c", "any host"), same("e", "example.com"));
    assert_eq!(messages, [vec![], vec![], vec![b.as_str()], vec![c.as_str()], vec![], vec![e.as_str()]]);
    // One bundle holds what one proxy gets.
    assert!(link(1, [&rulesets[0].1, &rulesets[1].1]).is_err());
}
