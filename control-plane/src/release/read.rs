//! From a release's text to what it says, or to everything that is wrong with it.

use super::{
    CONTROL, REST,
    shares::Shares,
    source::Source,
    spec::{Approval, OnNoData, Spec, Step, Watch},
};
use halftone_compiler::{Diagnostic, Subject, Tree, name_problem};
use halftone_judge::{Judge, Policy, policy::PromoteWhen};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const RELEASE: Subject = Subject { one: "release", many: "releases", start: "version: v1" };

/// Candidates of a release at most.
const MOST_CANDIDATES: usize = 16;
/// Steps of a release at most.
const MOST_STEPS: usize = 100;
/// Gates of a release at most.
const MOST_GATES: usize = 16;

/// The form of the text, but for metrics and policy, which are the judge's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: Version,
    name: Option<String>,
    ruleset: String,
    stable: String,
    candidates: Vec<String>,
    eligible: Option<String>,
    layer: Option<String>,
    range: Option<[f64; 2]>,
    before: Option<String>,
    #[serde(default = "default_steps")]
    steps: Vec<Step>,
    #[serde(default)]
    approval: Approval,
    #[serde(default)]
    on_no_data: OnNoData,
    #[serde(default)]
    gates: Vec<String>,
    #[serde(default)]
    watch: Watch,
}

#[derive(Deserialize)]
enum Version {
    #[serde(rename = "v1")]
    One,
}

fn default_steps() -> Vec<Step> {
    [0.01, 0.05, 0.2, 0.5].into_iter().map(|share| Step { share, hold: Default::default() }).collect()
}

/// What a release is judged by that names no metrics: nothing that backends see may be worse. Mostly nobody has NaN, and
/// from no events at all nothing can be known of their ratio: below the ceiling it does not matter.
fn default_metrics() -> Value {
    json!({
        "error": {"role": "guardrail", "kind": "event"},
        "nan": {"role": "guardrail", "kind": "event", "ceiling": 0.001},
        "latency": {"role": "guardrail", "kind": "latency"},
    })
}

/// Reads a release (YAML or JSON). `name` is the name that it is stored under; a text that names itself has to agree.
/// Without it, the text has to.
///
/// # Errors
/// All problems, with their places; at least one.
pub fn read(text: &str, name: Option<&str>) -> Result<Spec, Vec<Diagnostic>> {
    let tree = Tree::read(text, RELEASE)?;
    let reader = Reader { tree: &tree };
    let Value::Object(mut fields) = tree.value() else {
        return Err(tree.problem("", "a release is a mapping", Some("start with `version: v1`")));
    };
    let metrics = fields.remove("metrics").unwrap_or_else(default_metrics);
    let policy = fields.remove("policy").unwrap_or_else(|| Value::Object(Map::new()));
    let written: Written = reader.deserialize("", Value::Object(fields))?;
    let Version::One = written.version;
    let name = match (name, &written.name) {
        (Some(name), Some(own)) if name != own => {
            let message = format!("the release names itself {own:?}, and it is stored as {name:?}");
            return Err(tree.problem("name", &message, Some("give both the same name")));
        }
        (Some(name), _) => name.to_owned(),
        (None, Some(own)) => own.clone(),
        (None, None) => return Err(tree.problem("", "a release needs the field `name`", None)),
    };
    let (sources, metrics) = reader.sources(metrics)?;
    let policy = reader.policy(policy, metrics, &written)?;
    let judge = Judge::new(policy).map_err(|problems| {
        problems
            .iter()
            .flat_map(|problem| {
                let place = match problem.field.strip_prefix("metrics.") {
                    Some(_) => problem.field.clone(),
                    None if problem.field == "metrics" => "metrics".to_owned(),
                    None => format!("policy.{}", problem.field),
                };
                tree.problem(&place, &format!("`{place}` cannot be used"), Some(&problem.message))
            })
            .collect::<Vec<_>>()
    })?;
    let spec = Spec {
        name,
        ruleset: written.ruleset,
        stable: written.stable,
        candidates: written.candidates,
        eligible: written.eligible,
        layer: written.layer,
        range: written.range,
        before: written.before,
        steps: written.steps,
        sources,
        judge,
        approval: written.approval,
        on_no_data: written.on_no_data,
        gates: written.gates,
        watch: written.watch,
    };
    let problems: Vec<_> = problems(&spec)
        .into_iter()
        .flat_map(|(path, message, help)| tree.problem(&path, &message, Some(help)))
        .collect();
    if problems.is_empty() { Ok(spec) } else { Err(problems) }
}

/// What is wrong with a text that was read, where these are all the gates that there are.
pub(super) fn unknown_gates(text: &str, spec: &Spec, known: &[&str]) -> Vec<Diagnostic> {
    let Ok(tree) = Tree::read(text, RELEASE) else { return Vec::new() };
    let unknown = spec.gates.iter().enumerate().filter(|(_, gate)| !known.contains(&gate.as_str()));
    let help = match known {
        [] => "the control plane has no gates: the operator names them in the file of `serve --hooks`"
            .to_owned(),
        known => format!("there are {}", known.join(", ")),
    };
    unknown
        .flat_map(|(index, gate)| {
            tree.problem(&format!("gates.{index}"), &format!("there is no gate `{gate}`"), Some(&help))
        })
        .collect()
}

struct Reader<'a, 't> {
    tree: &'a Tree<'t>,
}

impl Reader<'_, '_> {
    fn deserialize<T: DeserializeOwned>(&self, at: &str, value: Value) -> Result<T, Vec<Diagnostic>> {
        serde_path_to_error::deserialize(value).map_err(|error| {
            let inside = error.path().to_string();
            let path = [at, inside.as_str()].into_iter().filter(|part| !matches!(*part, "" | "."));
            self.tree.problem(&path.collect::<Vec<_>>().join("."), &error.inner().to_string(), None)
        })
    }

    /// Takes the sources out of the metrics, so that the rest is the judge's.
    fn sources(&self, metrics: Value) -> Result<(BTreeMap<String, Source>, Value), Vec<Diagnostic>> {
        let Value::Object(mut metrics) = metrics else {
            return Err(self.tree.problem("metrics", "`metrics` is a mapping of names to metrics", None));
        };
        let mut sources = BTreeMap::new();
        for (name, metric) in &mut metrics {
            let given = metric.as_object_mut().and_then(|metric| metric.remove("source"));
            let says_better = metric.get("better").is_some();
            let source = match given {
                Some(source) => self.deserialize(&format!("metrics.{name}.source"), source)?,
                None => Source::of_name(name),
            };
            if matches!(source, Source::Prometheus(_)) && !says_better {
                // An error ratio taken for one that should rise would promote what is broken.
                let message = format!("the metric `{name}` has to say which way is good");
                let help = "write `better: lower` for errors and latencies, `better: higher` for successes";
                return Err(self.tree.problem(&format!("metrics.{name}"), &message, Some(help)));
            }
            sources.insert(name.clone(), source);
        }
        Ok((sources, Value::Object(metrics)))
    }

    fn policy(&self, policy: Value, metrics: Value, written: &Written) -> Result<Policy, Vec<Diagnostic>> {
        let mut policy = match policy {
            Value::Object(policy) => policy,
            // `policy: classic` for `policy: {kind: classic}`.
            kind @ Value::String(_) => Map::from_iter([("kind".to_owned(), kind)]),
            _ => return Err(self.tree.problem("policy", "`policy` is a mapping, or a kind", None)),
        };
        for (field, instead) in [
            ("metrics", "write `metrics` beside `policy`"),
            ("steps", "it is the number of `steps` of the release"),
            ("candidates", "it is the number of `candidates` of the release"),
            ("policy", "write `kind: sequential` or `kind: classic`"),
        ] {
            if policy.contains_key(field) {
                let message = format!("`{field}` does not belong into a release's policy");
                return Err(self.tree.problem(&format!("policy.{field}"), &message, Some(instead)));
            }
        }
        if let Some(kind) = policy.remove("kind") {
            let kind = self.deserialize("policy.kind", kind)?;
            let kind: halftone_judge::policy::PolicyKind = kind;
            policy.insert("policy".to_owned(), serde_json::to_value(kind).unwrap_or_default());
        }
        let asked = policy.contains_key("promote_when");
        let policy: Policy = self.deserialize("policy", Value::Object(policy))?;
        let metrics: BTreeMap<String, halftone_judge::policy::Metric> =
            self.deserialize("metrics", metrics)?;
        let has_goal = metrics.values().any(|metric| metric.role == halftone_judge::policy::Role::Goal);
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Ok(Policy {
            metrics,
            // The watch after the promotion is an epoch, too.
            steps: count(written.steps.len()).saturating_add(1),
            candidates: count(written.candidates.len()),
            promote_when: if asked || has_goal { policy.promote_when } else { PromoteWhen::NonInferior },
            ..policy
        })
    }
}

/// What is wrong besides the form: where, what, and what to do.
fn problems(spec: &Spec) -> Vec<(String, String, &'static str)> {
    let mut found = Vec::new();
    let mut wrong = |path: &str, message: String, help| found.push((path.to_owned(), message, help));
    let names = [("name", &spec.name), ("ruleset", &spec.ruleset), ("stable", &spec.stable)].into_iter();
    let optional = [("layer", &spec.layer), ("before", &spec.before)].into_iter();
    for (field, name) in names.chain(optional.filter_map(|(field, name)| Some((field, name.as_ref()?)))) {
        if let Some(problem) = name_problem(name) {
            wrong(field, format!("`{field}` {name:?} {problem}"), "use letters, digits, `.`, `_` and `-`");
        }
    }
    if spec.candidates.is_empty() || spec.candidates.len() > MOST_CANDIDATES {
        let message =
            format!("{} candidates, and 1 to {MOST_CANDIDATES} are possible", spec.candidates.len());
        wrong("candidates", message, "name the targets that are tried");
    }
    let mut known = BTreeSet::from([spec.stable.as_str()]);
    for (index, candidate) in spec.candidates.iter().enumerate() {
        let path = format!("candidates.{index}");
        if let Some(problem) = name_problem(candidate) {
            wrong(
                &path,
                format!("the target {candidate:?} {problem}"),
                "use letters, digits, `.`, `_` and `-`",
            );
        } else if [CONTROL, REST].contains(&candidate.as_str()) {
            wrong(
                &path,
                format!("`{candidate}` is what an arm of stable is called"),
                "give the target another name",
            );
        } else if !known.insert(candidate) {
            let message = format!("`{candidate}` is stable or a candidate already");
            wrong(&path, message, "name each target once");
        }
    }
    match (spec.range, &spec.layer) {
        (Some(_), None) => {
            wrong(
                "range",
                "a range is a part of a layer, but no layer is named".to_owned(),
                "add `layer: name`",
            );
        }
        (Some([start, end]), Some(_)) if !(0.0 <= start && start < end && end <= 1.0) => {
            wrong(
                "range",
                format!("from {start} to {end} is no range"),
                "give two ascending numbers from 0 to 1",
            );
        }
        _ => {}
    }
    if spec.steps.is_empty() || spec.steps.len() > MOST_STEPS {
        let message = format!("{} steps, and 1 to {MOST_STEPS} are possible", spec.steps.len());
        wrong("steps", message, "leave `steps` out for 1, 5, 20 and 50 %");
    }
    if spec.gates.len() > MOST_GATES {
        let message = format!("{} gates, and up to {MOST_GATES} are possible", spec.gates.len());
        wrong("gates", message, "name fewer");
    }
    let mut asked = BTreeSet::new();
    for (index, gate) in spec.gates.iter().enumerate().filter(|(_, gate)| !asked.insert(*gate)) {
        wrong(&format!("gates.{index}"), format!("`{gate}` is named already"), "name each gate once");
    }
    if !(spec.watch.control > 0.0 && spec.watch.control <= 0.5) {
        let help = "give a share above 0, at most 0.5: without a control nothing can be compared any more";
        wrong("watch.control", format!("`control` is {}", spec.watch.control), help);
        return found;
    }
    let mut last = 0.0;
    for (index, step) in spec.steps.iter().enumerate() {
        let path = format!("steps.{index}.share");
        let share = step.share;
        if !(share > last && share < 1.0) {
            wrong(
                &path,
                format!("a share of {share} after {last}"),
                "give shares between 0 and 1, each larger than the one before",
            );
        } else if share * spec.width() < 1e-6 {
            wrong(
                &path,
                format!("a share of {share} is less than one bucket"),
                "buckets are millionths: give more",
            );
        } else if !Shares::leaves_control(spec, share) {
            let message = format!(
                "{} candidates with {share} each leave no control to compare with",
                spec.candidates.len()
            );
            let help = "all candidates together have at most 1 less `watch.control`, so that nobody has to move back";
            wrong(&path, message, help);
        }
        last = share;
    }
    for (name, metric) in &spec.policy().metrics {
        // What models call their outputs is theirs to say.
        let problem = match name.strip_prefix("output:") {
            Some(output) => output.chars().any(char::is_control).then_some("has a control character"),
            None => name_problem(name),
        };
        if let Some(problem) = problem {
            wrong(
                "metrics",
                format!("the metric's name {name:?} {problem}"),
                "use letters, digits, `.`, `_` and `-`",
            );
        }
        if let Some(message) = spec.sources.get(name).and_then(|source| source.problem(metric)) {
            wrong(&format!("metrics.{name}"), message, "change `kind`, or name a `source`");
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use halftone_compiler::render;

    fn refused(text: &str) -> String {
        render("release", text, &read(text, Some("v2")).expect_err("it is refused"))
    }

    const SMALLEST: &str = "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2]\n";

    #[test]
    fn what_is_left_out_is_filled_in() {
        let spec = read(SMALLEST, Some("v2")).unwrap();
        assert_eq!(spec.steps.len(), 4);
        assert_eq!(spec.policy().metrics.len(), 3);
        assert_eq!((spec.policy().steps, spec.policy().candidates), (5, 1));
        assert_eq!(spec.policy().promote_when, PromoteWhen::NonInferior);
        assert_eq!(spec.approval, Approval::Manual);
        assert_eq!(spec.sources["nan"], Source::Observed("nan".into()));
    }

    #[test]
    fn what_is_wrong_is_shown_where_it_is() {
        for (text, wanted) in [
            ("steps: [{share: 0.5}, {share: 0.1}]", "a share of 0.1 after 0.5"),
            ("steps: [{share: 0.99}]", "leave no control"),
            ("steps: [{share: 1e-9}]", "less than one bucket"),
            (
                "metrics: {\"a b\": {kind: mean, role: signal}, error: {kind: event, role: guardrail}}",
                "has a character",
            ),
            ("candidates: [v1]", "stable or a candidate already"),
            ("candidates: [rest]", "an arm of stable"),
            ("range: [0, 0.5]", "no layer is named"),
            ("layer: a\nrange: [0.5, 0.5]", "is no range"),
            ("metrics: {click: {kind: event, role: guardrail}}", "outcomes are a proportion or a mean"),
            ("metrics: {error: {kind: event, role: goal}}", "events and latencies are guardrails"),
            ("policy: {steps: 3}", "does not belong"),
            ("policy: {alpha: {kill: 2}}", "give a level"),
            ("policy: other", "unknown variant"),
            (
                "metrics: {click: {kind: proportion, role: signal, source: {outcome: {metric: c, missing: zero}}}, error: {kind: \
                 event, role: guardrail}}",
                "without a `window_s`",
            ),
            ("steps: [{share: 0.1, hold: {for: 5 minutes}}]", "is not a duration"),
            ("watch: {control: 0}", "without a control"),
            ("gates: [a, b, a]", "`a` is named already"),
            ("name: other", "stored as \"v2\""),
            ("surprise: 1", "unknown field"),
            (
                "metrics: {e: {kind: event, role: guardrail, better: lower, source: {prometheus: {numerator: 'a{t=\"$target\"}', \
                 denominator: 'b{t=\"$target\"}'}}}}",
                "has is a `ratio`",
            ),
            (
                "metrics: {e: {kind: ratio, role: guardrail, source: {prometheus: {numerator: 'a{t=\"$target\"}', denominator: \
                 'b{t=\"$target\"}'}}}}",
                "which way is good",
            ),
            (
                "metrics: {e: {kind: ratio, role: guardrail, better: lower, source: {prometheus: {numerator: 'a{t=\"$target\"}', \
                 denominator: 'b{t=\"$target\"}', block: 2h}}}}",
                "give 100ms to 1h",
            ),
            (
                "metrics: {e: {kind: ratio, role: guardrail, better: lower, source: {prometheus: {numerator: a, denominator: \
                 'b{t=\"$target\"}'}}}}",
                "a selector of counters is expected",
            ),
        ] {
            let base = SMALLEST.lines().filter(|line| line.split(':').next() != text.split(':').next());
            let text = format!("{}\n{text}\n", base.collect::<Vec<_>>().join("\n"));
            let shown = refused(&text);
            assert!(shown.contains(wanted), "{text}\n{shown}");
        }
    }
}
