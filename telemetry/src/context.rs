//! What the filter decided for a request and which trace it belongs to, read once; and what came of it.

use crate::{
    outcome::Outcome,
    trace::{self, Span, Tracer},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use halftone_proto::v1::EvaluationContext;
use halftone_rules::{
    headers::CONTEXT,
    limits::MAX_REPORTED,
    trace::{TRACEPARENT, is_valid_traceparent},
};
use http::{HeaderMap, Request};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, TraceFlags, TraceId, TraceState};
use prost::Message;
use std::{
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};
use tower_layer::Layer;
use tower_service::Service;

/// Largest `x-halftone-context`, in bytes: longer than the filter's with the longest names in every place. Who sends
/// requests past the filter could else make every one of them hold a megabyte.
const LARGEST: usize = 8 << 10;
/// Longest of its names, in bytes: what the ledger takes.
const LONGEST_NAME: usize = 512;

/// What is known of a request. Every layer and every handler finds the same one in the request's extensions.
#[derive(Debug)]
pub struct RequestContext {
    /// What the filter decided; nothing when the request did not pass through it.
    pub evaluation: Option<EvaluationContext>,
    /// The span that it belongs to, which its `traceparent` names; nothing when it belongs to none.
    pub parent: Option<SpanContext>,
    /// From when to when the headers were read.
    pub(crate) read: (SystemTime, SystemTime),
    choice: OnceLock<Choice>,
    served: OnceLock<Served>,
    inference: OnceLock<Inference>,
    output_hash: OnceLock<u64>,
    feature_version: OnceLock<String>,
}

/// Whether this program records a request, where it is for it to choose.
#[derive(Debug)]
enum Choice {
    /// It does: there its spans belong.
    Recorded(Tracer, SpanContext),
    /// It does not: so it is called where something is asked for it.
    LeftOut(SpanContext),
}

/// Which model a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Its name.
    pub model: Arc<str>,
    /// Its version.
    pub version: Arc<str>,
    /// What it runs on: `cpu`, `cuda`, or `remote` where another server runs it.
    pub hardware: &'static str,
}

/// How an inference went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inference {
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took, the wait in the queue included.
    pub duration: Duration,
}

impl RequestContext {
    /// That of a request with these headers.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Self {
        let begun = SystemTime::now();
        let (evaluation, parent) = (evaluation(headers), parent(headers));
        Self {
            evaluation,
            parent,
            read: (begun, SystemTime::now()),
            choice: OnceLock::new(),
            served: OnceLock::new(),
            inference: OnceLock::new(),
            output_hash: OnceLock::new(),
            feature_version: OnceLock::new(),
        }
    }

    /// That of a request: the one in its extensions, or else read now and put there.
    pub fn of<B>(request: &mut Request<B>) -> Arc<Self> {
        if let Some(context) = request.extensions().get::<Arc<Self>>() {
            return Arc::clone(context);
        }
        let context = Arc::new(Self::read(request.headers()));
        request.extensions_mut().insert(Arc::clone(&context));
        context
    }

    /// The trace that it belongs to; nothing when it belongs to none.
    #[must_use]
    pub fn trace_id(&self) -> Option<TraceId> {
        // One that began here is recorded if it was an inference.
        let own = || self.span().filter(|_| self.inference().is_some());
        self.parent.as_ref().or_else(own).map(SpanContext::trace_id)
    }

    /// Its span, when it is recorded.
    #[must_use]
    pub fn span(&self) -> Option<&SpanContext> {
        match self.choice.get()? {
            Choice::Recorded(_, span) => Some(span),
            Choice::LeftOut(_) => None,
        }
    }

    /// From now on its stages are recorded below this span.
    pub(crate) fn record(&self, tracer: Tracer, span: SpanContext) {
        let _ = self.choice.set(Choice::Recorded(tracer, span));
    }

    /// It is not recorded here, and by nobody before: so those that are asked for it are not to record it, either.
    pub(crate) fn leave_out(&self) {
        let _ = self.choice.set(Choice::LeftOut(trace::unrecorded(self.parent.as_ref())));
    }

    /// The trace that it belongs to, where somebody records that: this program or, as far as is known, whoever sampled it.
    pub(crate) fn recorded_trace(&self) -> Option<TraceId> {
        let is_recorded = match self.choice.get() {
            Some(choice) => matches!(choice, Choice::Recorded(..)),
            None => self.sampled_parent().is_some(),
        };
        self.trace_id().filter(|_| is_recorded)
    }

    /// The `traceparent` of a request to another service, where no span of ours is recorded of that; nothing when there is no trace.
    #[must_use]
    pub fn traceparent(&self) -> Option<String> {
        let told = match self.choice.get() {
            Some(Choice::Recorded(_, span) | Choice::LeftOut(span)) => Some(span),
            None => self.parent.as_ref(),
        };
        told.map(trace::traceparent)
    }

    /// A stage of the request, from now until the span is dropped. Nothing where the request is not recorded.
    #[must_use]
    pub fn stage(&self, name: &'static str) -> Span {
        self.stage_of_kind(name, SpanKind::Internal)
    }

    /// As [`RequestContext::stage`], of another kind: a call of another service, for example.
    #[must_use]
    pub fn stage_of_kind(&self, name: &'static str, kind: SpanKind) -> Span {
        let Some(Choice::Recorded(tracer, span)) = self.choice.get() else { return Span::none() };
        tracer.below(span, name, kind)
    }

    /// The span that it belongs to, when its trace is sampled.
    #[must_use]
    pub fn sampled_parent(&self) -> Option<&SpanContext> {
        self.parent.as_ref().filter(|parent| parent.is_sampled())
    }

    /// Tells the layers which model the request is about. The first call counts: a request is about one.
    pub fn serve(&self, served: Served) {
        let _ = self.served.set(served);
    }

    /// Which model the request is about, once that is known.
    #[must_use]
    pub fn served(&self) -> Option<&Served> {
        self.served.get()
    }

    /// Tells the layers that the request is an inference, from now until what is returned is dropped or told how it
    /// ended.
    pub fn begin_inference(self: &Arc<Self>) -> RunningInference {
        RunningInference { context: Arc::clone(self), begun: Instant::now(), outcome: Outcome::Cancelled }
    }

    /// How the inference went, when it was one and is over.
    #[must_use]
    pub fn inference(&self) -> Option<Inference> {
        self.inference.get().copied()
    }

    /// Tells the layers the xxh3-64 hash of the output tensors' bytes.
    pub fn set_output_hash(&self, hash: u64) {
        let _ = self.output_hash.set(hash);
    }

    /// The hash of the outputs, when it was asked for.
    #[must_use]
    pub fn output_hash(&self) -> Option<u64> {
        self.output_hash.get().copied()
    }

    /// Tells the layers the version of the features that the model got.
    pub fn set_feature_version(&self, version: String) {
        let _ = self.feature_version.set(version);
    }

    /// The version of the features that the model got, when there were some and they have one.
    #[must_use]
    pub fn feature_version(&self) -> Option<&str> {
        self.feature_version.get().map(String::as_str)
    }
}

/// An inference that is under way. Dropped without a word about its end, it was cancelled: the client has left.
#[derive(Debug)]
pub struct RunningInference {
    context: Arc<RequestContext>,
    begun: Instant,
    outcome: Outcome,
}

impl RunningInference {
    /// It ended so.
    pub fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for RunningInference {
    fn drop(&mut self) {
        let inference = Inference { outcome: self.outcome, duration: self.begun.elapsed() };
        let _ = self.context.inference.set(inference);
    }
}

/// A malformed one is as good as none: it must not cost an answer.
fn evaluation(headers: &HeaderMap) -> Option<EvaluationContext> {
    let decoded = decode(headers.get(CONTEXT)?.as_bytes());
    decoded.inspect_err(|error| tracing::debug!(error, "{CONTEXT} is malformed and ignored")).ok()
}

/// What a value of `x-halftone-context` says.
///
/// # Errors
/// What is wrong with it.
pub fn decode(header: &[u8]) -> Result<EvaluationContext, String> {
    if header.len() > LARGEST {
        return Err(format!("it has {} bytes, more than {LARGEST}", header.len()));
    }
    let message = URL_SAFE_NO_PAD.decode(header).map_err(|e| e.to_string())?;
    let context = EvaluationContext::decode(message.as_slice()).map_err(|e| e.to_string())?;
    let experiments = context.experiments.len();
    if experiments > MAX_REPORTED {
        return Err(format!("it has {experiments} experiments, more than {MAX_REPORTED}"));
    }
    check(&context)?;
    Ok(context)
}

/// Refuses what no filter writes: who sends requests past it could else have whole batches of observations refused.
fn check(context: &EvaluationContext) -> Result<(), String> {
    let EvaluationContext { ruleset, rule, target, arm, tenant, feature_version, .. } = context;
    let names = [("ruleset", ruleset), ("rule", rule), ("target", target), ("arm", arm)];
    let said = [("tenant", tenant), ("feature_version", feature_version)];
    let said = said.into_iter().filter_map(|(what, text)| Some((what, text.as_ref()?)));
    let parts = context.experiments.iter();
    let parts =
        parts.flat_map(|part| [("experiment", &part.experiment), ("arm of an experiment", &part.arm)]);
    for (what, name) in names.into_iter().chain(said).chain(parts) {
        if name.len() > LONGEST_NAME {
            return Err(format!("`{what}` has {} bytes, more than {LONGEST_NAME}", name.len()));
        }
        if name.chars().any(char::is_control) {
            return Err(format!("`{what}` has a control character"));
        }
    }
    if context.experiments.iter().any(|part| part.experiment.is_empty() || part.arm.is_empty()) {
        return Err("an experiment without a name or an arm".into());
    }
    if context.ruleset.is_empty() && self::parts(context).next().is_some() {
        return Err("an arm without a ruleset".into());
    }
    for (what, number) in [("revision", context.revision), ("epoch", context.epoch)] {
        if i64::try_from(number).is_err() {
            return Err(format!("`{what}` is {number}, which no revision is"));
        }
    }
    Ok(())
}

/// The releases that a request is part of, with its arm of each.
pub fn parts(context: &EvaluationContext) -> impl Iterator<Item = (&str, &str)> {
    let rule = (!context.arm.is_empty()).then_some((context.rule.as_str(), context.arm.as_str()));
    let experiments = context.experiments.iter().map(|part| (part.experiment.as_str(), part.arm.as_str()));
    rule.into_iter().chain(experiments)
}

/// What a valid `traceparent` says. Its `tracestate` is not of our making and not ours to keep.
fn parent(headers: &HeaderMap) -> Option<SpanContext> {
    let mut all = headers.get_all(TRACEPARENT).iter();
    // Of several none can be told to be the right one.
    let header = all.next().filter(|_| all.next().is_none())?;
    is_valid_traceparent(header.as_bytes()).then_some(())?;
    let mut parts = header.to_str().ok()?.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(parts.next()?, 16).ok()?);
    Some(SpanContext::new(trace, span, flags, true, TraceState::NONE))
}

/// Reads the [`RequestContext`] of every request and puts it into the request's extensions as an `Arc`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ContextLayer;

impl<S> Layer<S> for ContextLayer {
    type Service = ContextService<S>;

    fn layer(&self, inner: S) -> ContextService<S> {
        ContextService { inner }
    }
}

/// What [`ContextLayer`] makes.
#[derive(Clone, Debug)]
pub struct ContextService<S> {
    inner: S,
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for ContextService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        RequestContext::of(&mut request);
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halftone_proto::v1::{Participation, Reason};
    use halftone_rules::limits::MAX_NAME_BYTES;
    use http::HeaderValue;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn reads_what_the_filter_wrote() {
        let context = EvaluationContext {
            timestamp_ms: 1_700_000_000_000,
            ruleset: "digits".into(),
            revision: 7,
            rule: "user-id-mod100".into(),
            target: "v2".into(),
            unit_hash: u64::MAX,
            bucket: Some(0),
            reason: Reason::Split.into(),
            ..EvaluationContext::default()
        };
        let value = URL_SAFE_NO_PAD.encode(context.encode_to_vec());
        assert_eq!(evaluation(&headers(CONTEXT, &value)), Some(context));
    }

    #[test]
    fn ignores_what_is_malformed() {
        for value in ["=", "not base64!", "_____w", "Cg"] {
            assert_eq!(evaluation(&headers(CONTEXT, value)), None, "{value}");
        }
        assert_eq!(evaluation(&HeaderMap::new()), None);
    }

    #[test]
    fn ignores_what_no_filter_writes() {
        let name = || "n".repeat(MAX_NAME_BYTES);
        let part = || Participation { experiment: name(), arm: name() };
        let largest = EvaluationContext {
            timestamp_ms: u64::MAX,
            ruleset: name(),
            revision: i64::MAX.unsigned_abs(),
            rule: name(),
            target: name(),
            unit_hash: u64::MAX,
            bucket: Some(999_999),
            reason: Reason::Split.into(),
            arm: name(),
            experiments: vec![part(); MAX_REPORTED],
            overridden: true,
            held_out: true,
            tenant: Some(name()),
            feature_version: Some(name()),
            epoch: i64::MAX.unsigned_abs(),
        };
        let read = |context: &EvaluationContext| {
            let value = URL_SAFE_NO_PAD.encode(context.encode_to_vec());
            evaluation(&headers(CONTEXT, &value))
        };
        assert_eq!(read(&largest), Some(largest.clone()));
        let many = vec![Participation::default(); MAX_REPORTED + 1];
        assert_eq!(read(&EvaluationContext { experiments: many, ..EvaluationContext::default() }), None);
        assert_eq!(read(&EvaluationContext { ruleset: "r".repeat(LARGEST), ..largest }), None);
    }

    #[test]
    fn parents() {
        let parent = |value: &str| RequestContext::read(&headers(TRACEPARENT, value)).parent;
        let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0";
        for (flags, sampled) in [("1", true), ("3", true), ("0", false), ("2", false)] {
            let parent = parent(&format!("{valid}{flags}")).unwrap();
            assert_eq!(parent.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
            assert_eq!(parent.span_id().to_string(), "b7ad6b7169203331");
            assert_eq!(parent.is_sampled(), sampled, "{flags}");
        }
        assert_eq!(parent("00-zz-b7ad6b7169203331-01"), None);
        assert_eq!(RequestContext::read(&HeaderMap::new()).parent, None);
        let mut two = headers(TRACEPARENT, &format!("{valid}1"));
        two.append(TRACEPARENT, format!("{valid}1").parse().unwrap());
        assert_eq!(RequestContext::read(&two).parent, None, "which one is meant?");
    }

    #[test]
    fn what_no_filter_writes_is_as_good_as_nothing() {
        let read = |context: &EvaluationContext| {
            let value = URL_SAFE_NO_PAD.encode(context.encode_to_vec());
            RequestContext::read(&headers(CONTEXT, &value)).evaluation
        };
        let part = |experiment: &str, arm: &str| EvaluationContext {
            ruleset: "r".into(),
            experiments: vec![Participation { experiment: experiment.into(), arm: arm.into() }],
            ..EvaluationContext::default()
        };
        let named =
            |target: &str| EvaluationContext { target: target.into(), ..EvaluationContext::default() };
        for lie in [
            named("a\tb"),
            named(&"x".repeat(513)),
            part("e", ""),
            part("", "a"),
            part("e\n", "a"),
            EvaluationContext { ruleset: String::new(), ..part("e", "a") },
            EvaluationContext { rule: "r".into(), arm: "a".into(), ..EvaluationContext::default() },
            EvaluationContext { revision: 1 << 63, ..EvaluationContext::default() },
            EvaluationContext { epoch: u64::MAX, ..EvaluationContext::default() },
            EvaluationContext { tenant: Some("\u{1b}[31m".into()), ..EvaluationContext::default() },
        ] {
            assert_eq!(read(&lie), None, "{lie:?}");
        }
        for fine in [named(&"x".repeat(512)), part("e", "a"), named("")] {
            assert_eq!(read(&fine), Some(fine.clone()));
        }
    }

    #[test]
    fn is_read_once_and_shared() {
        let mut request = Request::new(());
        let context = RequestContext::of(&mut request);
        assert!(Arc::ptr_eq(&context, &RequestContext::of(&mut request)));
        context.set_output_hash(5);
        assert_eq!(RequestContext::of(&mut request).output_hash(), Some(5));
    }

    #[test]
    fn who_leaves_cancels() {
        let context = Arc::new(RequestContext::read(&HeaderMap::new()));
        drop(context.begin_inference());
        assert_eq!(context.inference().unwrap().outcome, Outcome::Cancelled);
        let context = Arc::new(RequestContext::read(&HeaderMap::new()));
        context.begin_inference().end(Outcome::Ok);
        assert_eq!(context.inference().unwrap().outcome, Outcome::Ok);
    }
}
