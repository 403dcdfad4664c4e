//! Readers and writers of one engine.

use anyhow::{Context as _, Result};
use halftone_embed::{Change, Engine, Event, HttpRequest, LoadError, Rules, now};
use halftone_rules::{Bundle, codec};
use std::{thread::ScopedJoinHandle, time::Duration};
use tokio::time::timeout;

/// A bundle whose target says its revision.
fn bundle(revision: u64) -> Result<Vec<u8>> {
    Ok(codec::encode(&Bundle::pass_all(revision, "digits", &format!("v{revision}")))?)
}

#[test]
fn every_decision_is_of_exactly_one_revision() -> Result<()> {
    let engine = Engine::from_bundle(&bundle(1)?)?;
    std::thread::scope(|scope| -> Result<()> {
        let read = || -> Result<()> {
            let (mut newest, mut seen) = (0, 0);
            while seen < 100 {
                let rules = engine.rules();
                assert!(rules.revision() >= newest, "the rules went back");
                seen += usize::from(rules.revision() > newest);
                newest = rules.revision();
                let target = format!("v{newest}");
                for user in 0..3u64 {
                    let context = rules.context("digits")?.set("user.id", user)?;
                    let decision = context.decide().context("no decision")?;
                    assert_eq!((decision.revision, decision.target), (newest, target.as_str()));
                }
            }
            Ok(())
        };
        let readers: Vec<_> = (0..4).map(|_| scope.spawn(read)).collect();
        let mut revision = 1;
        while !readers.iter().all(ScopedJoinHandle::is_finished) {
            revision += 1;
            engine.replace_bundle(&bundle(revision)?)?;
        }
        for reader in readers {
            reader.join().expect("a reader panicked")?;
        }
        assert_eq!(engine.rules().revision(), revision);
        Ok(())
    })
}

/// With a lock, one of the two would wait for the other: a change for readers that hold rules, or readers for a
/// change.
#[test]
fn readers_and_changes_do_not_wait_for_each_other() -> Result<()> {
    let engine = Engine::from_bundle(&bundle(1)?)?;
    let mut held: Vec<Rules> = Vec::new();
    for revision in 2..=100 {
        held.push(engine.rules());
        engine.replace_bundle(&bundle(revision)?)?;
    }
    for (rules, revision) in held.iter().zip(1..) {
        let decision = rules.decide(&HttpRequest::new(), now()).context("no decision")?;
        assert_eq!(decision.target, format!("v{revision}"));
    }
    Ok(())
}

#[test]
fn what_cannot_be_taken_changes_nothing() -> Result<()> {
    let engine = Engine::from_bundle(&bundle(1)?)?;
    let mut damaged = bundle(2)?;
    damaged[30] ^= 1;
    assert!(matches!(engine.replace_bundle(&damaged), Err(LoadError::Bundle(_))));
    assert!(matches!(engine.replace_bundle(b""), Err(LoadError::Bundle(_))));
    let error = engine.replace_ruleset("{version: v1, rules: [{name: a, target: b, wieght: 1}]}", "digits");
    let Err(LoadError::Ruleset { diagnostics, rendered }) = error else { panic!("{error:?}") };
    assert_eq!(diagnostics.len(), 1);
    assert!(rendered.contains("did you mean `weight`"), "{rendered}");
    assert_eq!(engine.rules().revision(), 1);

    let ruleset = "{version: v1, rules: [], default: v7}";
    assert_eq!(engine.replace_ruleset(ruleset, "digits")?, Some(Change { revision: 2, previous: 1 }));
    assert_eq!(engine.replace_ruleset(ruleset, "digits")?, None, "it is in force already");
    let rules = engine.rules();
    assert_eq!(rules.context("digits")?.decide().context("no decision")?.target, "v7");
    Ok(())
}

#[test]
fn an_engine_without_rules_decides_nothing() -> Result<()> {
    let engine = Engine::new();
    assert_eq!(engine.rules().revision(), 0);
    assert_eq!(engine.rules().decide(&HttpRequest::new(), now()), None);
    assert!(Engine::load("/nonexistent").unwrap_err().to_string().contains("/nonexistent cannot be read"));
    Ok(())
}

#[tokio::test]
async fn a_slow_subscriber_holds_nothing_up_and_learns_what_it_missed() -> Result<()> {
    let engine = Engine::new();
    let (mut slow, mut late) = (engine.subscribe(), engine.subscribe());
    for revision in 1..=200 {
        engine.replace_bundle(&bundle(revision)?)?;
    }
    let Some(Event::Missed(missed)) = slow.next().await else { panic!("it missed nothing") };
    for revision in missed + 1..=200 {
        let change = Change { revision, previous: revision - 1 };
        assert_eq!(slow.next().await, Some(Event::Changed(change)));
    }
    // A thread without a runtime gets the same ones, and the end.
    drop(engine);
    let waiting = tokio::task::spawn_blocking(move || {
        let first = late.next_blocking();
        let rest = std::iter::from_fn(|| late.next_blocking()).count() as u64;
        (first, rest)
    });
    let (first, rest) = timeout(Duration::from_secs(30), waiting).await??;
    assert_eq!((first, rest), (Some(Event::Missed(missed)), 200 - missed));
    Ok(())
}

#[test]
fn handles_go_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<Engine>();
    check::<Rules>();
    check::<Event>();
}
