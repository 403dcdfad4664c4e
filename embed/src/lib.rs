//! Gray rules decided inside your own process: the evaluator of the Envoy filter, behind an engine whose rules
//! are swapped while it runs.
//!
//! ```
//! use halftone_embed::{Engine, Event};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("digits.yaml");
//! let ruleset = "
//!     version: v1
//!     attributes:
//!       tier: {header: x-tier}
//!     rules:
//!       - {name: gold, condition: tier == 'gold', target: v2}
//!       - {name: canary, weight: 0.1, target: v2}
//!     default: v1
//! ";
//! std::fs::write(&path, ruleset)?;
//!
//! // Load a bundle or a ruleset, and follow its file from now on.
//! let engine = Engine::load(&path)?;
//! let mut events = engine.subscribe();
//! let watch = engine.watch_file(&path);
//!
//! // Evaluate. All that is asked of one `rules()` is answered by one revision.
//! let rules = engine.rules();
//! let context = rules.context("digits")?.set("user.id", 42)?.set("tier", "gold")?;
//! let decision = context.decide().ok_or("no decision")?;
//! assert_eq!((decision.target, decision.rule), ("v2", Some("gold")));
//!
//! // A misspelt name is an error, and the error says what exists.
//! let error = rules.context("digits")?.set("teir", "gold").unwrap_err();
//! assert_eq!(error.to_string(), "no rule of \"digits\" reads an attribute \"teir\": did you mean `tier`?");
//!
//! // Explain: rule by rule, with values and buckets.
//! let explanation = context.explain().ok_or("no decision")?;
//! assert_eq!(explanation.rules[0].why, "the condition holds");
//!
//! // Edit the file: the new rules are in force within half a second, and whoever subscribed is told.
//! std::fs::write(&path, ruleset.replace("gold", "silver"))?;
//! let Some(Event::Changed(change)) = events.next().await else { panic!("the edit was not noticed") };
//! assert_eq!(engine.rules().revision(), change.revision);
//! // Whoever still holds the old rules goes on with them.
//! assert_eq!(context.decide().ok_or("no decision")?.target, "v2");
//!
//! watch.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Which ruleset decides
//!
//! The rules in force are a bundle of rulesets. Within a process there is mostly no HTTP request by which to choose
//! one, so [`Rules::context`] takes the ruleset's name, and its `match` is not asked. Where there is a request,
//! [`Rules::context_for`] takes the ruleset whose `match` fits the request's host and path best, as the filter
//! does. [`Rules::decide`] takes whatever implements [`Request`], with no names and types to check.
//!
//! # What readers and writers do to each other
//!
//! Nothing. [`Engine::rules`] is an atomic load: no lock, no allocation, and no waiting for a change that is under
//! way. Deciding does not allocate either; making a [`Context`] does, for the values that are put in. New rules are
//! read, compiled and verified off to the side and then swapped in at once. Rules that cannot be taken change
//! nothing.
//!
//! # Where rules come from
//!
//! [`Engine::watch_file`] follows a file, [`Engine::watch_url`] a control plane's `/v1/bundle` or any other HTTP
//! server. Both need a tokio runtime, both keep the last good rules whatever happens to the source, and both end
//! when their [`Watch`] is dropped. [`Engine::new`] starts without rules, for processes that must come up before
//! their source does: nothing is decided then, and the host uses its own default.
#![forbid(unsafe_code)]

mod content;
mod context;
mod engine;
mod event;
mod file;
mod http_request;
mod rules;
mod url;
mod value;
mod watch;

pub use content::LoadError;
pub use context::{Context, ContextError};
pub use engine::Engine;
pub use event::{Change, Event, Events};
pub use halftone_compiler::{AttributeValue, Diagnostic, Explanation, RuleOutcome};
pub use halftone_rules::{Decision, Participation, Reason, Request, Timestamp, VerifiedBundle};
pub use http_request::HttpRequest;
pub use rules::{Rules, now};
pub use url::{UrlError, UrlSource};
pub use value::Value;
pub use watch::Watch;

// The README's examples are checked with those of this crate.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
