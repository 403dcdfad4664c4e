//! Gates: endpoints that are asked before a release goes on. Whoever wants an answer never waits for it here.

use super::{
    deliver::shown,
    settings::{Gate, Hooks},
};
use crate::release::{
    Spec,
    gate::{Answer, Answered, Question},
};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Bytes of an answer.
const MOST_BYTES: usize = 64 * 1024;
/// Characters of a reason that are kept.
const MOST_REASON: usize = 500;

/// Asks gates, and remembers what they said. Cheap to clone.
#[derive(Clone, Default)]
pub struct Gatekeeper(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// By name.
    gates: BTreeMap<String, Gate>,
    /// The question that each release waits for.
    asked: Mutex<BTreeMap<String, Asked>>,
}

/// A question, and what came of it.
struct Asked {
    question: Question,
    /// The gates that the release named then.
    gates: Vec<String>,
    is_pending: bool,
    /// The last answer. A no counts until the next one.
    answer: Option<Answer>,
    /// When it may be asked again.
    again_at: Instant,
}

impl Asked {
    /// Whether this was asked, and of these gates.
    fn is_of(&self, spec: &Spec, question: &Question) -> bool {
        self.question.is_same(question) && self.gates == spec.gates
    }
}

/// What an endpoint gets.
#[derive(Serialize)]
struct Body<'a> {
    release: &'a str,
    ruleset: &'a str,
    stable: &'a str,
    candidate: &'a str,
    /// `widen`, `propose` or `promote`.
    action: crate::release::record::Action,
    /// The step that the release is in, from 1.
    step: usize,
    steps: usize,
    share: f64,
    verdict: &'a str,
}

/// What an endpoint answers.
#[derive(Deserialize)]
struct Said {
    allow: bool,
    reason: Option<String>,
}

impl Gatekeeper {
    /// Of the gates in the operator's file.
    #[must_use]
    pub fn new(hooks: &Hooks) -> Self {
        let gates = hooks.gates.iter().map(|gate| (gate.endpoint.name.clone(), gate.clone())).collect();
        Self(Arc::new(Inner { gates, asked: Mutex::default() }))
    }

    /// Names of all gates.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.0.gates.keys().map(String::as_str).collect()
    }

    /// Has the release's gates asked, unless they are being asked or said no a moment ago.
    pub(crate) fn ask(&self, spec: &Arc<Spec>, question: &Question) {
        let now = Instant::now();
        let mut all = self.asked();
        let known = all.get(&spec.name).filter(|asked| asked.is_of(spec, question));
        if known.is_some_and(|asked| asked.is_pending || now < asked.again_at) {
            return;
        }
        let answer = known.and_then(|asked| asked.answer.clone());
        let (question, gates) = (question.clone(), spec.gates.clone());
        let asked = Asked { question: question.clone(), gates, is_pending: true, answer, again_at: now };
        all.insert(spec.name.clone(), asked);
        drop(all);
        let (this, spec) = (self.clone(), spec.clone());
        tokio::spawn(async move {
            let answer = this.answer_of(&spec, &question).await;
            let again_at = Instant::now() + this.again(&spec);
            let mut all = this.asked();
            // Otherwise nobody wants to know any more.
            if let Some(asked) = all.get_mut(&spec.name).filter(|asked| asked.is_of(&spec, &question)) {
                (asked.is_pending, asked.answer, asked.again_at) = (false, Some(answer), again_at);
            }
        });
    }

    /// What is known by now of what a release's gates say.
    pub(crate) fn answer(&self, spec: &Spec) -> Option<Answered> {
        let all = self.asked();
        let asked = all.get(&spec.name).filter(|asked| asked.gates == spec.gates)?;
        Some(Answered { question: asked.question.clone(), answer: asked.answer.clone()? })
    }

    /// A release waits for no gate. An answer that comes late counts for nothing.
    pub(crate) fn forget(&self, release: &str) {
        self.asked().remove(release);
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<String, Asked>> {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shortest time of the release's gates.
    fn again(&self, spec: &Spec) -> Duration {
        let gates = spec.gates.iter().filter_map(|name| self.0.gates.get(name));
        gates.map(|gate| gate.again).min().unwrap_or(Duration::from_secs(30))
    }

    /// Asks all of them at once. All have to say yes.
    async fn answer_of(&self, spec: &Spec, question: &Question) -> Answer {
        let answers = spec.gates.iter().map(async |name| match self.0.gates.get(name) {
            Some(gate) => ask(gate, spec, question).await.map_err(|why| format!("the gate {name} {why}")),
            None => {
                Err(format!("the gate {name} is not in the file of --hooks: add it there, or remove it here"))
            }
        });
        let refused = join_all(answers).await.into_iter().find_map(Result::err);
        refused.map_or(Answer::Open, Answer::Closed)
    }
}

/// Asks a gate; why the release may not go on.
async fn ask(gate: &Gate, spec: &Spec, question: &Question) -> Result<(), String> {
    let Question { candidate, action, step, share, since_ms, verdict } = question;
    let body = Body {
        release: &spec.name,
        ruleset: &spec.ruleset,
        stable: &spec.stable,
        candidate,
        action: *action,
        step: step + 1,
        steps: spec.steps.len(),
        share: *share,
        verdict,
    };
    let body = serde_json::to_string(&body).map_err(|error| error.to_string())?;
    // The same for every time that it is asked.
    let id = format!("{}.{since_ms}.{step}", spec.name);
    let endpoint = &gate.endpoint;
    let request = endpoint.secret.signed(endpoint.http.post(endpoint.url.clone()), &id, body);
    let failed = |error: reqwest::Error| format!("failed: {}", shown(&error));
    let mut answer = request.send().await.map_err(failed)?;
    if answer.status() != reqwest::StatusCode::OK {
        return Err(format!("failed: it answered {}", answer.status()));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MOST_BYTES {
            return Err(format!("failed: its answer has more than {MOST_BYTES} bytes"));
        }
    }
    let said: Said = serde_json::from_slice(&bytes).map_err(|_| {
        "failed: its answer is not {\"allow\": true} or {\"allow\": false, \"reason\": \"…\"}".to_owned()
    })?;
    if said.allow {
        return Ok(());
    }
    let reason = said.reason.unwrap_or_else(|| "without a reason".to_owned());
    let reason: String = reason.chars().filter(|c| !c.is_control()).take(MOST_REASON).collect();
    Err(format!("said no: {reason}"))
}
