//! What a release does at one moment: a pure function of what is known.

use super::{
    allocation::{epoch_of, is_same},
    gate::{Answered, Held, Question, passes},
    record::{Action, Judged},
    safety::{Safety, Seen},
    shares::Shares,
    snapshot::{Knowledge, snapshot},
    spec::{Approval, OnNoData, Spec},
    status::{Epoch, Phase, Status},
};
use halftone_compiler::Release;
use halftone_judge::{
    Verdict,
    policy::{self, Decision, Reason, choose},
};
use std::collections::BTreeMap;

/// What is known at a moment.
pub(super) struct Moment<'a> {
    /// What was observed, and when it is.
    pub(super) known: Knowledge<'a>,
    /// What the release takes of its ruleset in the revision in force.
    pub(super) actual: Option<&'a Release>,
    /// What its gates said.
    pub(super) answered: Option<&'a Answered>,
    /// What is known of the fleet; looked at while it returns to stable.
    pub(super) seen: Seen,
    /// When the controller started: milliseconds since the Unix epoch.
    pub(super) started_ms: u64,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Decided {
    /// What to do.
    pub(super) action: Action,
    /// Who decided.
    pub(super) by: &'static str,
    /// Why, for people.
    pub(super) why: String,
    /// What the judge said of a candidate.
    pub(super) judged: Option<Judged>,
}

const JUDGE: &str = "judge";
const CONTROLLER: &str = "controller";

impl Decided {
    fn new(action: Action, why: impl Into<String>) -> Self {
        Self { action, by: CONTROLLER, why: why.into(), judged: None }
    }

    /// What a person wanted.
    #[must_use]
    pub(super) fn by_person(action: Action, why: impl Into<String>) -> Self {
        Self::new(action, why)
    }

    fn judged(action: Action, judged: &Judged) -> Self {
        let why = judged.verdict.sentence.clone();
        Self { action, by: JUDGE, why, judged: Some(judged.clone()) }
    }
}

/// Goes on by one moment: the status after it, and what was decided, in order. At most the last of these changes the
/// allocation.
#[must_use]
pub(super) fn tick(spec: &Spec, status: &Status, moment: &Moment<'_>) -> (Status, Vec<Decided>) {
    let mut next = status.clone();
    let mut decided = Vec::new();
    if let Some(changed) = compare(&mut next, spec, moment) {
        decided.push(changed);
        return (next, decided);
    }
    let now_ms = moment.known.now_ms;
    let phase = match next.phase {
        Phase::Paused => next.paused_in.unwrap_or(Phase::Running),
        phase => phase,
    };
    match phase {
        Phase::Pending if next.phase == Phase::Pending => {
            next.start(now_ms);
            decided.push(Decided::new(Action::Start, next.why.clone()));
        }
        Phase::Running | Phase::Candidate => judge(spec, &mut next, moment, &mut decided),
        Phase::Promoted if !next.settled => {
            judge(spec, &mut next, moment, &mut decided);
            let over = now_ms.saturating_sub(next.since_ms) >= millis(spec.watch.time);
            // A watch that sees nothing is none.
            let seen = next.winner.as_ref().and_then(|winner| next.candidates.get(winner)?.verdict.as_ref());
            let seen = seen
                .is_some_and(|verdict| verdict.reason != Reason::NoData && verdict.reason != Reason::Stale);
            if next.phase == Phase::Promoted && over && seen {
                next.settled = true;
                next.why = "the watch after the promotion is over".to_owned();
                decided.push(Decided::new(Action::Settle, next.why.clone()));
            }
        }
        Phase::RolledBack | Phase::Aborted => {
            if let Some(safety) = &mut next.safety
                && safety.safe_at_ms.is_none()
                && safety.observe(moment.seen, now_ms)
            {
                decided.push(Decided::new(Action::Safe, safe(safety)));
            }
        }
        Phase::Pending | Phase::Promoted | Phase::Paused => {}
    }
    (next, decided)
}

fn safe(safety: &Safety) -> String {
    let seconds = safety.time_to_safe_ms.unwrap_or_default() as f64 / 1e3;
    format!("no proxy routes to a candidate any more, {seconds:.1} s after the decision")
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Notices what others changed: the ruleset's text, other releases, or proxies that all refused.
fn compare(status: &mut Status, spec: &Spec, moment: &Moment<'_>) -> Option<Decided> {
    let now_ms = moment.known.now_ms;
    status.shares(spec)?;
    let last = status.epochs.last_mut()?;
    match moment.actual {
        Some(actual) if actual.epoch == last.epoch => None,
        // It has none because it was paused when that was noticed.
        None if last.until_ms.is_some() => None,
        actual => {
            last.until_ms = Some(now_ms);
            let next = actual.map(|actual| epoch_of(actual, spec.width(), now_ms));
            let same = next.as_ref().is_some_and(|next| {
                next.candidates == last.candidates && is_close(next.shares.candidate, last.shares.candidate)
            });
            if let Some(next) = next {
                // What was taken back brings the epoch before it back: its observations go on.
                let before = status.epochs.iter().position(|epoch| epoch.epoch == next.epoch);
                let before = before.map(|at| Epoch { until_ms: None, ..status.epochs.remove(at) });
                status.epochs.push(before.unwrap_or(next));
            }
            if same {
                let why = "the ruleset changed, and with it who may take part: a new epoch began";
                return Some(Decided::new(Action::Note, why));
            }
            let why = "every proxy refused the last revision, and it was taken back: look at GET /v1/nodes, then resume";
            if status.phase != Phase::Paused {
                status.enter(Phase::Paused, why, now_ms);
            }
            Some(Decided::new(Action::Pause, why))
        }
    }
}

fn is_close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-6
}

/// Asks the judge about each candidate, and does what it says.
fn judge(spec: &Spec, status: &mut Status, moment: &Moment<'_>, decided: &mut Vec<Decided>) {
    let waited = status.gate.take();
    let tried: Vec<String> = status.tried().map(str::to_owned).collect();
    let mut verdicts = BTreeMap::new();
    let mut judged = BTreeMap::new();
    for name in &tried {
        let snapshot = snapshot(spec, status, name, &moment.known);
        let Some(candidate) = status.candidates.get_mut(name) else { continue };
        let before = candidate.judge.clone();
        let (verdict, after) = spec.judge.judge(&snapshot, before.clone());
        candidate.judge = after.clone();
        verdicts.insert(name.clone(), verdict.clone());
        let policy = spec.policy().clone();
        judged.insert(
            name.clone(),
            Judged { candidate: name.clone(), policy, snapshot, before, verdict, after },
        );
    }
    choose(&mut verdicts);
    for (name, verdict) in &verdicts {
        let Some(candidate) = status.candidates.get_mut(name) else { continue };
        let is_news =
            verdict.look_due || !candidate.verdict.as_ref().is_some_and(|last| is_alike(last, verdict));
        candidate.verdict = Some(verdict.clone());
        candidate.judged_at_ms = Some(moment.known.now_ms);
        if is_news && let Some(judged) = judged.get(name) {
            decided.push(Decided::judged(Action::Note, judged));
        }
    }
    // What only a Prometheus server counts, no backend of ours reports.
    let unheard = if spec.asks_only_prometheus() { None } else { unheard(status, &tried, moment) };
    let worse = verdicts.values().any(|verdict| verdict.action == policy::Action::Rollback);
    let done = match unheard {
        Some((name, why)) if !worse => {
            status.roll_back(&name, why.clone(), moment.known.now_ms);
            Some(Decided::new(Action::Rollback, why))
        }
        _ => follow(spec, status, &verdicts, &judged, moment, waited.as_ref()),
    };
    if let Some(held) = &mut status.gate {
        if held.refused && waited.as_ref().is_none_or(|waited| waited.why != held.why) {
            decided.push(Decided::new(Action::Note, held.why.clone()));
        }
        // Its numbers move at every moment, which is nothing to keep.
        if let Some(waited) = waited.filter(|waited| waited.question.is_same(&held.question)) {
            held.question = waited.question;
        }
    }
    let Some(done) = done else { return };
    // What was done says it all.
    decided.retain(|note| {
        note.judged.as_ref().map(|of| &of.candidate) != done.judged.as_ref().map(|of| &of.candidate)
    });
    decided.push(done);
}

/// A candidate that nothing is heard of, and why it is given up.
fn unheard(status: &mut Status, tried: &[String], moment: &Moment<'_>) -> Option<(String, String)> {
    let epoch = status.epochs.last()?;
    let shares = (epoch.shares.candidate, epoch.shares.control);
    let observed = moment.known.epoch(epoch.epoch)?;
    let candidates = &mut status.candidates;
    let unheard = tried.iter().filter_map(|name| {
        let silence = &mut candidates.get_mut(name)?.silence;
        Some((name.clone(), silence.listen(observed, name, shares, moment.known.now_ms)?))
    });
    // All of them listen, whoever is given up.
    unheard.collect::<Vec<_>>().into_iter().next()
}

/// Whether two verdicts say the same, with other numbers.
fn is_alike(a: &Verdict, b: &Verdict) -> bool {
    (a.decision, a.reason, a.action, &a.subject) == (b.decision, b.reason, b.action, &b.subject)
}

/// Does what the verdicts ask for, in the order of their urgency.
fn follow(
    spec: &Spec,
    status: &mut Status,
    verdicts: &BTreeMap<String, Verdict>,
    judged: &BTreeMap<String, Judged>,
    moment: &Moment<'_>,
    waited: Option<&Held>,
) -> Option<Decided> {
    let now_ms = moment.known.now_ms;
    let of = |action: policy::Action| {
        let found = verdicts.iter().find(|(_, verdict)| verdict.action == action);
        found.and_then(|(name, verdict)| Some((name.as_str(), verdict, judged.get(name)?)))
    };
    if let Some((name, verdict, judged)) = of(policy::Action::Rollback) {
        status.roll_back(name, verdict.sentence.clone(), now_ms);
        return Some(Decided::judged(Action::Rollback, judged));
    }
    if matches!(status.phase, Phase::Paused | Phase::Promoted) {
        return None;
    }
    if let Some((name, verdict, judged)) = of(policy::Action::Pause) {
        let no_data = verdict.decision == Decision::InsufficientData;
        match spec.on_no_data {
            OnNoData::Hold if no_data => {}
            OnNoData::Rollback if no_data => {
                status.roll_back(name, verdict.sentence.clone(), now_ms);
                return Some(Decided::judged(Action::Rollback, judged));
            }
            _ => {
                status.enter(Phase::Paused, verdict.sentence.clone(), now_ms);
                return Some(Decided::judged(Action::Pause, judged));
            }
        }
    }
    if status.phase == Phase::Candidate {
        if let Some((_, verdict, judged)) = of(policy::Action::Resume) {
            status.enter(Phase::Running, verdict.sentence.clone(), now_ms);
            status.winner = None;
            return Some(Decided::judged(Action::Withdraw, judged));
        }
        if spec.approval == Approval::Manual {
            return None;
        }
        // The text was replaced while it waited.
        let winner = status.winner.clone()?;
        let why = "nobody has to approve any more";
        let share = Shares::of_watch(spec).candidate;
        let asked = question(status, &winner, Action::Promote, share, why);
        if !passes(spec, status, moment.answered, asked) {
            return None;
        }
        status.promote(&winner, why, now_ms);
        return Some(Decided::new(Action::Promote, why));
    }
    if !is_fresh(judged, moment) {
        // What was known before the start says nothing of what happened meanwhile.
        return None;
    }
    let proposed = of(policy::Action::Candidate)
        .map(|(name, verdict, judged)| {
            (name, verdict.sentence.as_str(), Decided::judged(Action::Propose, judged))
        })
        .or_else(|| still_proposed(status, verdicts, waited?));
    if let Some((name, why, decided)) = proposed {
        let action = if spec.approval == Approval::Auto { Action::Promote } else { Action::Propose };
        let share = match action {
            Action::Promote => Shares::of_watch(spec).candidate,
            _ => Shares::of_step(spec, status.step).candidate,
        };
        if !passes(spec, status, moment.answered, question(status, name, action, share, why)) {
            return None;
        }
        status.winner = Some(name.to_owned());
        match action {
            Action::Promote => status.promote(name, why, now_ms),
            _ => status.enter(Phase::Candidate, why, now_ms),
        }
        return Some(Decided { action, ..decided });
    }
    if let Some((name, verdict, judged)) = of(policy::Action::Abort) {
        if verdicts.len() > 1 {
            status.roll_back(name, verdict.sentence.clone(), now_ms);
        } else {
            status.enter(Phase::Aborted, verdict.sentence.clone(), now_ms);
        }
        return Some(Decided::judged(Action::Abort, judged));
    }
    let all_widen = verdicts.values().all(|verdict| verdict.action == policy::Action::Widen);
    if all_widen
        && !status.is_last_step(spec)
        && let Some((name, verdict, judged)) = of(policy::Action::Widen)
    {
        let share = Shares::of_step(spec, status.step + 1).candidate;
        let asked = question(status, name, Action::Widen, share, &verdict.sentence);
        if !passes(spec, status, moment.answered, asked) {
            return None;
        }
        status.widen(&verdict.sentence, now_ms);
        return Some(Decided::judged(Action::Widen, judged));
    }
    None
}

/// Whether something was heard of since the controller started.
fn is_fresh(judged: &BTreeMap<String, Judged>, moment: &Moment<'_>) -> bool {
    let newest = judged.values().map(|of| of.snapshot.data_age_s.saturating_mul(1_000)).max();
    newest.is_some_and(|age_ms| moment.known.now_ms.saturating_sub(age_ms) >= moment.started_ms)
}

/// A proposal that waits for the gates, unless the judge has come to something else. It proposes at a look, and says between
/// two looks that it collects.
fn still_proposed<'a>(
    status: &Status,
    verdicts: &'a BTreeMap<String, Verdict>,
    waited: &'a Held,
) -> Option<(&'a str, &'a str, Decided)> {
    let Question { candidate, verdict: why, .. } = &waited.question;
    let verdict = verdicts.get(candidate).filter(|_| waited.is_proposal(status))?;
    let stands = !verdict.look_due && verdict.action == policy::Action::None;
    let decided = Decided { action: Action::Propose, by: JUDGE, why: why.clone(), judged: None };
    stands.then_some((candidate.as_str(), why.as_str(), decided))
}

fn question(status: &Status, candidate: &str, action: Action, share: f64, verdict: &str) -> Question {
    let (step, since_ms) = (status.step, status.since_ms);
    Question { candidate: candidate.to_owned(), action, step, share, since_ms, verdict: verdict.to_owned() }
}

/// Whether what the release takes is what its status wants.
pub(super) fn is_in_force(wanted: Option<&Release>, actual: Option<&Release>) -> bool {
    match (wanted, actual) {
        (None, None) => true,
        (Some(wanted), Some(actual)) => is_same(wanted, actual),
        _ => false,
    }
}
