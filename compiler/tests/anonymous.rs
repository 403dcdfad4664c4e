//! Requests that bring no unit, and requests that carry an override token.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use halftone_compiler::{compile, link};
use halftone_rules::{
    Reason, Request, Timestamp, VerifiedBundle,
    anonymous::{AnonymousUnit, SameSite, UnitCookie},
    unit_hash,
};

const RULESET: &str = "
version: v1
unit_cookie: {name: visitor, max_age: 720h, same_site: strict}
targets: {v1: , v2: }
default: v1
overrides: [{units: ['7'], target: v1}]
rules:
  - {name: half, weight: 0.5, target: v2}
";

fn bundle(text: &str) -> VerifiedBundle {
    let compiled = compile(text, "digits").unwrap_or_else(|problems| panic!("{problems:#?}"));
    VerifiedBundle::new(link(1, [&compiled]).unwrap()).unwrap()
}

#[derive(Default)]
struct Visit<'a> {
    user: Option<&'a str>,
    cookies: Option<&'a str>,
    fresh: Option<AnonymousUnit>,
    demanded: Option<(&'a str, &'a str)>,
}

impl Request for Visit<'_> {
    fn header(&self, name: &str) -> Option<&[u8]> {
        match name {
            "x-user-id" => self.user.map(str::as_bytes),
            "cookie" => self.cookies.map(str::as_bytes),
            _ => None,
        }
    }

    fn fresh_unit(&self) -> Option<&AnonymousUnit> {
        self.fresh.as_ref()
    }

    fn demanded_target(&self, ruleset: &str) -> Option<&str> {
        self.demanded.filter(|(of, _)| *of == ruleset).map(|(_, target)| target)
    }
}

#[test]
fn a_request_without_a_unit_gets_one_and_keeps_it() {
    let bundle = bundle(RULESET);
    let fresh = AnonymousUnit::new([0xab; 16]);
    let first = Visit { fresh: Some(fresh), ..Visit::default() };
    let decided = bundle.decide(&first, Timestamp(0), &mut ()).unwrap();
    let cookie = decided.new_unit.expect("the client is to keep the unit");
    let expected = UnitCookie {
        name: "visitor".into(),
        max_age_seconds: 720 * 3600,
        same_site: SameSite::Strict,
        secure: true,
    };
    assert_eq!(*cookie, expected);
    assert_eq!(decided.unit_hash, Some(unit_hash(fresh.as_bytes())));
    assert!(decided.bucket.is_some() || decided.reason == Reason::Default);

    // The unit that comes back is the same one, whatever the host would offer now.
    let cookies = format!("a=b; visitor={}; c=d", "ab".repeat(16));
    let again =
        Visit { cookies: Some(&cookies), fresh: Some(AnonymousUnit::new([1; 16])), ..Visit::default() };
    let decided_again = bundle.decide(&again, Timestamp(0), &mut ()).unwrap();
    assert_eq!(decided_again, decided);
    assert_eq!(decided_again.new_unit, None);
}

#[test]
fn a_unit_of_its_own_comes_before_the_cookie() {
    let bundle = bundle(RULESET);
    let cookies = format!("visitor={}", "ab".repeat(16));
    let visit = Visit { user: Some("42"), cookies: Some(&cookies), ..Visit::default() };
    let decided = bundle.decide(&visit, Timestamp(0), &mut ()).unwrap();
    assert_eq!((decided.unit_hash, decided.new_unit), (Some(unit_hash(b"42")), None));
}

#[test]
fn a_cookie_that_is_none_of_ours_is_replaced() {
    let bundle = bundle(RULESET);
    let fresh = AnonymousUnit::new([3; 16]);
    for cookies in
        ["visitor=", "visitor=42", "visitor=\"<script>\"", "xvisitor=abababababababababababababababab"]
    {
        let visit = Visit { cookies: Some(cookies), fresh: Some(fresh), ..Visit::default() };
        let decided = bundle.decide(&visit, Timestamp(0), &mut ()).unwrap();
        assert_eq!(decided.unit_hash, Some(unit_hash(fresh.as_bytes())), "{cookies}");
        assert!(decided.new_unit.is_some(), "{cookies}");
    }
}

#[test]
fn without_the_cookie_or_a_host_that_can_there_is_no_unit() {
    let asks = bundle(RULESET);
    let decided = asks.decide(&Visit::default(), Timestamp(0), &mut ()).unwrap();
    assert_eq!((decided.unit_hash, decided.new_unit, decided.target), (None, None, "v1"));

    let does_not = bundle(&RULESET.replace("unit_cookie", "#"));
    let visit = Visit { fresh: Some(AnonymousUnit::new([3; 16])), ..Visit::default() };
    let decided = does_not.decide(&visit, Timestamp(0), &mut ()).unwrap();
    assert_eq!((decided.unit_hash, decided.new_unit), (None, None));
}

#[test]
fn a_demanded_target_comes_before_everything_else() {
    let bundle = bundle(RULESET);
    for user in ["7", "1", "2", "3", "4"] {
        let visit = Visit { user: Some(user), demanded: Some(("digits", "v2")), ..Visit::default() };
        let decided = bundle.decide(&visit, Timestamp(0), &mut ()).unwrap();
        assert_eq!((decided.target, decided.rule, decided.overridden), ("v2", None, true));
        assert_eq!(decided.reason, Reason::TargetingMatch);
    }
    for demanded in [("digits", "v3"), ("other", "v2")] {
        let visit = Visit { user: Some("7"), demanded: Some(demanded), ..Visit::default() };
        let decided = bundle.decide(&visit, Timestamp(0), &mut ()).unwrap();
        assert_eq!(decided.target, "v1", "{demanded:?}");
    }
}

#[test]
fn the_cookie_has_defaults_and_its_own_errors() {
    let with = |cookie: &str| {
        compile(&format!("version: v1\nunit_cookie: {cookie}\nrules: []\n"), "digits")
            .map(|compiled| compiled.ruleset.unit_cookie.unwrap())
            .map_err(|problems| problems[0].message.clone())
    };
    let year = 365 * 24 * 3600;
    let lax = SameSite::Lax;
    let expected =
        UnitCookie { name: "halftone-unit".into(), max_age_seconds: year, same_site: lax, secure: true };
    assert_eq!(with("{}"), Ok(expected.clone()));
    assert_eq!(with("{max_age: 0}").map(|cookie| cookie.max_age_seconds), Ok(0));
    assert_eq!(with("{secure: false}"), Ok(UnitCookie { secure: false, ..expected }));
    for (cookie, message) in [
        ("{name: 'a b'}", "is not a cookie's name"),
        ("{name: 'a;b'}", "is not a cookie's name"),
        ("{name: ''}", "is not a cookie's name"),
        ("{max_age: 720}", "is not a duration"),
        ("{max_age: -1h}", "`max_age` is 0ns to"),
        ("{max_age: 9601h}", "`max_age` is 0ns to"),
        ("{same_site: any}", "has no value"),
        ("{same_site: none, secure: false}", "browsers refuse"),
        ("{name: __Host-unit, secure: false}", "browsers refuse"),
        ("{secure: yes}", "is true or false"),
        ("{maxage: 1h}", "maxage"),
    ] {
        let error = with(cookie).expect_err(cookie);
        assert!(error.contains(message), "{cookie}: {error}");
    }
}
