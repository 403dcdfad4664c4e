use super::{Report, Simulation, TargetName};
use crate::{compile, link};
use halftone_rules::{Request, Timestamp, VerifiedBundle, bucket::Seed, codec};

/// Headers by name.
struct Headers<'a>(&'a [(&'a str, &'a str)]);

impl Request for Headers<'_> {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_bytes())
    }
}

fn rules(rulesets: &[(&str, &str)]) -> VerifiedBundle {
    let compiled: Vec<_> =
        rulesets.iter().map(|(name, text)| compile(text, name).expect("it compiles")).collect();
    codec::decode(&codec::encode(&link(1, &compiled).expect("they fit")).expect("it verifies"))
        .expect("it decodes")
}

fn one(text: &str) -> VerifiedBundle {
    rules(&[("digits", text)])
}

fn canary(weight: &str) -> VerifiedBundle {
    one(&format!("version: v1\nrules: [{{name: canary, weight: {weight}, target: v2}}]"))
}

fn by_users(simulation: &mut Simulation, users: std::ops::Range<u32>) {
    for user in users {
        simulation.record(&Headers(&[("x-user-id", &user.to_string())]), Timestamp(0));
    }
}

/// Requests per target, old and new.
fn requests(report: &Report) -> Vec<(&str, Option<u64>, Option<u64>)> {
    report.targets.iter().map(|t| (t.target.as_str(), t.requests.old, t.requests.new)).collect()
}

#[test]
fn a_larger_weight_only_adds_units() {
    let mut simulation = Simulation::new(Some(canary("0.1")), canary("0.2"));
    by_users(&mut simulation, 0..10_000);
    // The same units again: they are no new ones.
    by_users(&mut simulation, 0..10_000);
    let below = |limit| {
        let users = 0..10_000_u32;
        users
            .filter(|user| {
                Seed::of_rule("digits", "canary").ready().bucket(user.to_string().as_bytes()) < limit
            })
            .count() as u64
    };
    let (before, after) = (below(100_000), below(200_000));
    let report = simulation.report();
    assert_eq!((report.requests, report.moved_requests), (20_000, Some(2 * (after - before))));
    assert_eq!(
        requests(&report),
        [
            ("v2", Some(2 * before), Some(2 * after)),
            ("default", Some(20_000 - 2 * before), Some(20_000 - 2 * after)),
        ]
    );
    let target = |name: &str| Some(TargetName { ruleset: "digits".into(), target: name.into() });
    let [only] = &report.units.moves[..] else { panic!("{:?}", report.units.moves) };
    assert_eq!((&only.from, &only.to, only.units), (&target("default"), &target("v2"), after - before));
    assert_eq!((report.units.distinct, report.units.moved), (10_000, Some(after - before)));
    assert!((report.units.moved_share.unwrap() - 0.1).abs() < 0.01);
    assert!((report.targets[0].difference.unwrap() - 0.1).abs() < 0.01);
    assert_eq!(report.targets[0].units.new, Some(after));
    assert_eq!((report.units.mixed, report.units.untracked_requests), (0, 0));
}

#[test]
fn rules_that_take_nothing_are_named() {
    let text = "version: v1
rules:
  - {name: internal, condition: 'user.id < 10', target: v2}
  - {name: shadowed, condition: 'user.id == 3', target: v3}
  - {name: gold, condition: 'tenant.tier == \"gold\"', target: v3}
  - {name: rest, weight: 0.5, target: v2}
";
    let old = "version: v1\nrules: [{name: gone, target: v1}, {name: rest, weight: 0.5, target: v2}]";
    let mut simulation = Simulation::new(Some(one(old)), one(text));
    by_users(&mut simulation, 0..20);
    simulation.record(&Headers(&[]), Timestamp(0));
    simulation.record(&Headers(&[("x-user-id", "ten"), ("x-tenant-tier", "silver")]), Timestamp(0));
    let report = simulation.report();
    let hits: Vec<_> = report.rules.iter().map(|r| (r.rule.as_str(), r.hits.old, r.hits.new)).collect();
    let rest = report.rules[3].hits.new;
    assert_eq!(
        hits,
        [
            ("internal", None, Some(10)),
            ("shadowed", None, Some(0)),
            ("gold", None, Some(0)),
            ("rest", Some(0), rest),
            ("gone", Some(22), None),
        ]
    );
    let never: Vec<_> = report.never_hit.iter().map(|rule| rule.rule.as_str()).collect();
    assert_eq!(never, ["shadowed", "gold"]);
    let errors = |rule: usize| {
        let errors = report.rules[rule].errors.new.as_deref().unwrap();
        errors.iter().map(|error| error.requests).collect::<Vec<_>>()
    };
    assert_eq!(errors(0), [1, 1], "a missing and a malformed user id");
    assert_eq!(errors(2), [11], "requests without a tier that got this far");
    assert_eq!(report.without_unit.new, Some(1));
    assert_eq!(report.rules[3].without_unit.new, Some(1));
}

#[test]
fn without_old_rules_only_the_new_ones_are_reported() {
    let mut simulation = Simulation::new(None, canary("1"));
    by_users(&mut simulation, 0..5);
    let report = simulation.report();
    assert_eq!(requests(&report), [("v2", None, Some(5)), ("default", None, Some(0))]);
    assert_eq!((report.moved_requests, report.units.moved, report.units.moves.len()), (None, None, 0));
    assert_eq!((report.targets[0].difference, report.ungoverned.old), (None, None));
    assert_eq!((report.units.distinct, report.units.mixed), (5, 0));
}

#[test]
fn a_unit_counts_with_its_last_request_and_in_every_ruleset() {
    let versions = "version: v1
match: {path_prefixes: [/a]}
default: v1
rules: [{name: new, condition: 'request.path.startsWith(\"/a/new\")', target: v2}]
";
    let other = "version: v1\nmatch: {path_prefixes: [/b]}\ndefault: v1\nrules: []\n";
    let mut simulation =
        Simulation::new(Some(rules(&[("a", versions)])), rules(&[("a", versions), ("b", other)]));
    for path in ["/a/old", "/a/new", "/b", "/c"] {
        simulation.record(&Headers(&[(":path", path), ("x-user-id", "7")]), Timestamp(0));
    }
    let report = simulation.report();
    assert_eq!((report.ungoverned.old, report.ungoverned.new), (Some(2), Some(1)));
    let units: Vec<_> = report
        .targets
        .iter()
        .map(|target| (format!("{}/{}", target.ruleset, target.target), target.units.old, target.units.new))
        .collect();
    assert_eq!(
        units,
        [
            ("a/v2".into(), Some(1), Some(1)),
            ("a/v1".into(), Some(0), Some(0)),
            ("b/v1".into(), None, Some(1)),
        ]
    );
    assert_eq!((report.units.distinct, report.units.mixed, report.units.moved), (2, 1, Some(1)));
    assert_eq!(report.units.moves[0].from, None);
    assert_eq!(report.moved_requests, Some(1));
}

#[test]
fn units_beyond_the_limit_are_counted_as_requests_only() {
    let mut simulation = Simulation::new(Some(canary("0")), canary("1")).with_unit_limit(3);
    by_users(&mut simulation, 0..5);
    by_users(&mut simulation, 0..5);
    let report = simulation.report();
    assert_eq!((report.requests, report.moved_requests), (10, Some(10)));
    assert_eq!((report.units.distinct, report.units.moved), (3, Some(3)));
    assert_eq!((report.units.limit, report.units.untracked_requests), (3, 4));
}

#[test]
fn nothing_seen_is_no_division_by_zero() {
    let report = Simulation::new(Some(canary("0.1")), canary("0.2")).report();
    assert_eq!(
        (report.requests, report.targets[0].share.new, report.units.moved_share),
        (0, Some(0.0), Some(0.0))
    );
    assert_eq!(report.never_hit.len(), 1);
}
