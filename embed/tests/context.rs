//! Contexts: names, types, and which ruleset decides.

use anyhow::{Context as _, Result};
use halftone_compiler::{compile, link};
use halftone_embed::{ContextError, Engine, HttpRequest, Timestamp, now};
use halftone_rules::codec;

const DIGITS: &str = "
version: v1
attributes:
  tier: {header: x-tier}
  app.version: {header: x-app-version, type: int}
  groups: {header: x-groups, type: list}
rules:
  - {name: gold, condition: tier == 'gold' && app.version >= 300, target: v3}
  - {name: staff, condition: \"'staff' in groups\", target: v2}
  - {name: raw, condition: \"request.headers['x-tier'] == 'silver'\", target: v4}
  - {name: beta, condition: request.path.startsWith('/beta'), target: v5}
default: v1
";

#[test]
fn values_decide() -> Result<()> {
    let engine = Engine::from_ruleset(DIGITS, "digits")?;
    let rules = engine.rules();
    let new = || rules.context("digits");
    for (context, expected) in [
        (new()?, "v1"),
        (new()?.set("tier", "gold")?.set("app.version", 300)?, "v3"),
        (new()?.set("tier", "gold")?.set("app.version", 299u64)?, "v1"),
        (new()?.set("tier", "gold")?.set("app.version", -1)?.set("app.version", 300)?, "v3"),
        (new()?.set("groups", &["users", "staff"])?, "v2"),
        // Two names of one header are one value, as in a request.
        (new()?.set("tier", "silver")?, "v4"),
        (new()?.request(HttpRequest::new().header("X-Tier", "silver")), "v4"),
        (new()?.request(HttpRequest::new().header("x-tier", "silver")).set("tier", "gold")?, "v1"),
        (new()?.request(HttpRequest::new().path("/beta/x?y")), "v5"),
        (new()?.set_if_read("teir", "gold")?, "v1"),
    ] {
        let decision = context.decide().context("no decision")?;
        assert_eq!(decision.target, expected, "{context:?}");
        assert_eq!(context.explain().context("no explanation")?.target, expected);
    }
    Ok(())
}

#[test]
fn errors_say_what_exists() -> Result<()> {
    let engine = Engine::from_ruleset(DIGITS, "digits")?;
    let rules = engine.rules();
    let context = rules.context("digits")?;
    for (error, expected) in [
        (rules.context("digts").err(), "there is no ruleset \"digts\": did you mean `digits`?"),
        (Engine::new().rules().context("digits").err(), "there is no ruleset \"digits\": there is none"),
        (
            context.clone().set("teir", "gold").err(),
            "no rule of \"digits\" reads an attribute \"teir\": did you mean `tier`?",
        ),
        (context.clone().set("app.version", "300").err(), "the attribute \"app.version\" is int, not a text"),
        (context.clone().set_if_read("tier", 3).err(), "the attribute \"tier\" is string, not an int"),
        (
            context.clone().set("tier", &"x".repeat(8193)).err(),
            "the attribute \"tier\" takes at most 8192 bytes, not 8193",
        ),
    ] {
        assert_eq!(error.map(|error| error.to_string()).as_deref(), Some(expected));
    }
    let Err(ContextError::UnknownAttribute { help, .. }) = context.clone().set("country", "de") else {
        panic!("an attribute that does not exist was taken")
    };
    for (name, ty) in [("tier", "string"), ("app.version", "int"), ("groups", "list")] {
        assert!(help.contains(name), "{help}");
        assert!(context.attributes().any(|known| known == (name, ty)), "{name}");
    }
    Ok(())
}

/// By name, a ruleset decides whatever its `match` and those of the others; for a request, the closest one does.
#[test]
fn a_ruleset_is_chosen_by_name_or_by_its_match() -> Result<()> {
    let scopes = [
        ("all", ""),
        ("below", "match: {hosts: ['*.example.com']}"),
        ("deeper", "match: {hosts: ['*.a.example.com']}"),
        ("exact", "match: {hosts: [x.example.com, y.example.com]}"),
        ("exact-v2", "match: {hosts: [x.example.com], path_prefixes: [/v2]}"),
        ("models", "match: {path_prefixes: [/v2/models, /v3]}"),
        ("v2", "match: {path_prefixes: [/v2]}"),
    ];
    let compiled = scopes.map(|(name, scope)| {
        compile(&format!("version: v1\n{scope}\nrules: []\ndefault: {name}\n"), name)
            .map_err(|problems| format!("{problems:?}"))
    });
    let compiled: Vec<_> = compiled.into_iter().collect::<Result<_, _>>().map_err(anyhow::Error::msg)?;
    let engine = Engine::from_bundle(&codec::encode(&link(7, &compiled)?)?)?;
    let rules = engine.rules();
    assert_eq!(rules.rulesets().collect::<Vec<_>>(), scopes.map(|(name, _)| name));
    for (name, _) in scopes {
        let decision = rules.context(name)?.decide().context("no decision")?;
        assert_eq!((decision.ruleset, decision.target), (name, name));
        // What the conditions are told of a request makes no difference.
        let elsewhere = HttpRequest::new().host("x.example.com").path("/v2");
        let decision = rules.context(name)?.request(elsewhere).decide().context("no decision")?;
        assert_eq!(decision.ruleset, name);
    }
    for (host, path, expected) in [
        ("z.org", "/", "all"),
        ("z.example.com:80", "/v2", "below"),
        ("z.a.example.com", "/v2", "deeper"),
        ("x.example.com", "/v2/models", "exact-v2"),
        ("z.org", "/v2/models", "models"),
    ] {
        let request = HttpRequest::new().host(host).path(path);
        let context = rules.context_for(request.clone())?.set("user.id", 1)?;
        assert_eq!(context.ruleset(), expected, "{host}{path}");
        assert_eq!(context.decide().context("no decision")?.ruleset, expected, "{host}{path}");
        assert_eq!(rules.decide(&request, now()).context("no decision")?.ruleset, expected);
    }
    let error = Engine::new().rules().context_for(HttpRequest::new()).err();
    assert_eq!(error, Some(ContextError::Ungoverned));
    Ok(())
}

#[test]
fn the_time_can_be_given() -> Result<()> {
    let ruleset = "
version: v1
rules:
  - {name: later, condition: now >= timestamp('2100-01-01T00:00:00Z'), target: v2}
default: v1
";
    let engine = Engine::from_ruleset(ruleset, "digits")?;
    let rules = engine.rules();
    let target =
        |context: halftone_embed::Context<'_>| context.decide().map(|decision| decision.target.to_owned());
    assert_eq!(target(rules.context("digits")?).as_deref(), Some("v1"));
    let later = Timestamp::from_millis(4_102_444_800_000);
    assert_eq!(target(rules.context("digits")?.now(later)).as_deref(), Some("v2"));
    Ok(())
}
