//! What is observed arrives at the control plane: all of it, once, whatever happens in between.

use crate::{
    grpc,
    ledger::{Ledger, Mood},
    onnx,
    overload::long,
    process::{PATIENCE, Running, command, log_lines, most_memory, refused},
    support::{committed_models, held_out, request},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use halftone_proto::{
    inference::{ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient},
    v1::{
        EvaluationContext, ObservationBatch, Omitted, Participation, Series, TracedRequest,
        traced_request::Answer,
    },
};
use nix::sys::signal::Signal;
use prost::Message;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, LazyLock},
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::task::JoinSet;
use tonic::{Code, transport::Channel};

const DIGITS: &str = "/v2/models/digits/infer";

/// When a unit's requests are decided, by the clock of this process at its first one.
fn decided_ms(unit: u64) -> u64 {
    static START: LazyLock<u64> = LazyLock::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::try_from(since.as_millis()).unwrap()
    });
    *START + unit % 1_000
}

/// What the filter decided for a unit, in an arm of a rule.
pub(crate) fn context(unit: u64, arm: &str) -> EvaluationContext {
    EvaluationContext {
        timestamp_ms: decided_ms(unit),
        ruleset: "digits".into(),
        revision: 7,
        rule: "trial".into(),
        target: format!("{arm}-target"),
        unit_hash: unit,
        arm: arm.into(),
        ..EvaluationContext::default()
    }
}

pub(crate) fn header(context: &EvaluationContext) -> String {
    URL_SAFE_NO_PAD.encode(context.encode_to_vec())
}

/// A backend that reports to a ledger, and how to ask it.
pub(crate) struct Backend {
    running: Running,
    client: reqwest::Client,
}

impl Backend {
    fn start(ledger: &Ledger, folder: &Path, arguments: &[&str]) -> Self {
        Self::serving(&committed_models(), ledger, folder, arguments)
    }

    pub(crate) fn serving(models: &Path, ledger: &Ledger, folder: &Path, arguments: &[&str]) -> Self {
        let (to, folder) = (ledger.url(), folder.to_str().unwrap());
        let mut all = vec!["--observations-to", &to, "--observations-dir", folder];
        all.extend(
            ["--observations-interval-ms", "50"]
                .iter()
                .filter(|_| !arguments.contains(&"--observations-interval-ms")),
        );
        all.extend(arguments);
        Self::with(models, &all)
    }

    /// One that reports to nobody.
    pub(crate) fn silent(models: &Path) -> Self {
        Self::with(models, &[])
    }

    fn with(models: &Path, arguments: &[&str]) -> Self {
        let running = Running::serving(models, arguments);
        Self { running, client: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    /// The status of an answer over REST.
    pub(crate) async fn post(&self, path: &str, body: String, context: Option<&EvaluationContext>) -> u16 {
        let mut request = self.client.post(format!("http://{}{path}", self.running.address)).body(body);
        if let Some(context) = context {
            request = request.header("x-halftone-context", header(context));
        }
        request.send().await.unwrap().status().as_u16()
    }

    async fn digit(&self, context: Option<&EvaluationContext>) {
        assert_eq!(self.post(DIGITS, request(&held_out()[..1]), context).await, 200);
    }

    /// The code of an answer over gRPC.
    pub(crate) async fn grpc(&self, message: ModelInferRequest, context: &EvaluationContext) -> Code {
        let url = format!("http://{}", self.running.address);
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        let mut client = GrpcInferenceServiceClient::new(channel);
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("x-halftone-context", header(context).parse().unwrap());
        client.model_infer(request).await.map_or_else(|status| status.code(), |_| Code::Ok)
    }

    /// Tells it to stop; asserts that it does.
    pub(crate) fn stop(self) -> Vec<Value> {
        self.running.signal(Signal::SIGTERM);
        let output = self.running.finish();
        assert_eq!(output.status.code(), Some(0));
        log_lines(&output)
    }
}

fn series(release: &str, arm: &str) -> Series {
    Series {
        ruleset: "digits".into(),
        release: release.into(),
        epoch: 7,
        arm: arm.into(),
        target: format!("{arm}-target"),
        model: "digits".into(),
        version: "3".into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_counted_once_and_every_unit() {
    let (ledger, folder) = (Ledger::start(), tempfile::tempdir().unwrap());
    let backend = Arc::new(Backend::start(&ledger, folder.path(), &[]));
    // 60 units, each three times, in two arms, at once: so they are batched.
    let mut asked = Vec::new();
    for round in 0..3_u64 {
        for unit in 1..=60_u64 {
            let backend = Arc::clone(&backend);
            asked.push(tokio::spawn(async move {
                let arm = if unit % 3 == 0 { "b" } else { "a" };
                // Units in all buckets.
                let context = context(unit << 54 | unit, arm);
                if round == 1 {
                    assert_eq!(backend.grpc(grpc::digit(""), &context).await, Code::Ok);
                } else {
                    backend.digit(Some(&context)).await;
                }
            }));
        }
    }
    for asked in asked {
        asked.await.unwrap();
    }
    let backend = Arc::into_inner(backend).unwrap();
    // Without a context: counted by model and version, and nobody is exposed.
    backend.digit(None).await;
    // Never analysed.
    backend.digit(Some(&EvaluationContext { overridden: true, ..context(1, "a") })).await;
    backend.digit(Some(&EvaluationContext { held_out: true, ..context(1, "a") })).await;
    // In no arm, but in two experiments.
    let part = |experiment: &str, arm: &str| Participation { experiment: experiment.into(), arm: arm.into() };
    let experiments = vec![part("colour", "red"), part("size", "large")];
    let in_two = EvaluationContext { arm: String::new(), experiments, ..context(1000, "a") };
    backend.digit(Some(&in_two)).await;
    // In nothing.
    backend.digit(Some(&EvaluationContext { arm: String::new(), ..context(1001, "a") })).await;
    // The client's own fault, over both protocols.
    assert_eq!(backend.post(DIGITS, "{".into(), Some(&context(2000, "b"))).await, 400);
    let wrong = ModelInferRequest { inputs: Vec::new(), ..grpc::digit("") };
    assert_eq!(backend.grpc(wrong, &context(2001, "b")).await, Code::InvalidArgument);
    let logged = backend.stop();

    let books = ledger.books();
    let count = |metric: &str, series: &Series| {
        books.statistics.get(&(series.clone(), metric.to_owned())).map_or(0, |sums| sums.count)
    };
    let (a, b) = (series("trial", "a"), series("trial", "b"));
    assert_eq!((count("latency", &a), count("error", &a), count("nan", &a)), (120, 120, 120));
    assert_eq!((count("latency", &b), count("error", &b), count("refused", &b)), (60, 62, 62));
    let sums = |metric: &str| &books.statistics[&(b.clone(), metric.to_owned())];
    assert_eq!((sums("refused").ones, sums("error").ones, sums("nan").ones), (2, 0, 0));
    assert_eq!((sums("latency").histogram, sums("latency").rejected), (60, 0));
    assert!(sums("latency").min > 0.0 && sums("latency").max < 60.0);
    // Three requests in the bucket of each unit.
    let buckets: Vec<_> = (1..=60).filter(|unit| unit % 3 == 0).collect();
    assert_eq!(sums("latency").units.keys().copied().collect::<Vec<_>>(), buckets);
    assert!(sums("latency").units.values().all(|(seconds, requests)| *requests == 3 && *seconds > 0.0));

    let units = |series: &Series| books.exposures.get(series).map_or(0, |units| units.len());
    assert_eq!((units(&a), units(&b)), (40, 22));
    let of_three = books.exposures[&b][&(3 << 54 | 3)];
    assert_eq!((of_three.0, of_three.2), (decided_ms(3 << 54 | 3), 0));
    assert!(of_three.1.is_some_and(|latency| latency > 0.0));
    let of_refused = books.exposures[&b][&2000];
    assert_eq!((of_refused.1, of_refused.2), (None, 8));

    let experiment = |release: &str, arm: &str| Series { target: "a-target".into(), ..series(release, arm) };
    for part in [experiment("colour", "red"), experiment("size", "large")] {
        assert_eq!((count("latency", &part), units(&part)), (1, 1));
    }
    let nothing = experiment("", "");
    assert_eq!((count("latency", &nothing), units(&nothing)), (1, 0));
    let model = Series { model: "digits".into(), version: "3".into(), ..Series::default() };
    assert_eq!((count("latency", &model), units(&model)), (1, 0));
    assert_eq!(books.requests(), 180 + 1 + 2 + 1 + 2);
    // The one that was on its way when it was told to stop may come twice, and is recognised.
    assert!(books.again <= 1, "{} came again", books.again);
    assert_eq!((books.omitted, books.bad_events.len()), (Default::default(), 0));
    // The same input has the same output, whatever it was batched with: the label, at least.
    let hashes: Vec<_> = logged.iter().filter_map(|line| line["model_output_hash"].as_str()).collect();
    assert_eq!(hashes.len(), 180 + 5, "one for each answer");
    assert!(hashes.iter().all(|hash| hash.len() == 16));
}

/// Requests of this many new units, each in one arm.
async fn ask(backend: &Backend, units: std::ops::Range<u64>) {
    for unit in units {
        backend.digit(Some(&context(unit, "a"))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_control_plane_is_away_all_is_kept_and_sent_later_once() {
    let (mut ledger, folder) = (Ledger::start(), tempfile::tempdir().unwrap());
    let backend = Backend::start(&ledger, folder.path(), &[]);
    let mut asked = 0;
    for mood in [
        None,
        Some(Mood::LosesTheAnswer),
        Some(Mood::Refuses(Code::Unavailable)),
        Some(Mood::Refuses(Code::Unimplemented)),
        Some(Mood::Refuses(Code::DeadlineExceeded)),
    ] {
        let before = ledger.books().reports.len();
        match mood {
            None => ledger.kill(),
            Some(mood) => ledger.books().mood = mood,
        }
        ask(&backend, asked + 1..asked + 11).await;
        if mood.is_some() {
            ledger.wait(|books| books.reports.len() > before);
        } else {
            wait_for(|| !batches(folder.path()).is_empty());
        }
        ask(&backend, asked + 11..asked + 21).await;
        asked += 20;
        match mood {
            None => ledger.resume(),
            Some(_) => ledger.books().mood = Mood::Takes,
        }
        ledger.wait(|books| books.requests() == asked);
        assert_eq!(ledger.books().totals(), (asked, asked, 0), "{mood:?}");
    }
    wait_for(|| batches(folder.path()).is_empty());
    backend.stop();
    let books = ledger.books();
    assert_eq!((books.requests(), books.again, books.omitted), (asked, 0, Default::default()));
    // What was refused came again as it was, and nothing overtook it.
    assert!(books.reports.is_sorted_by_key(|(_, sequence)| *sequence));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_hangs_holds_nothing_up() {
    let (mut ledger, folder) = (Ledger::start(), tempfile::tempdir().unwrap());
    ledger.books().mood = Mood::Hangs;
    let backend = Backend::start(&ledger, folder.path(), &[]);
    ask(&backend, 1..2).await;
    ledger.wait(|books| !books.reports.is_empty());
    ask(&backend, 2..20).await;
    // It is given up after a while, and tried again.
    ledger.wait(|books| books.reports.len() >= 2);
    ledger.kill();
    ledger.books().mood = Mood::Takes;
    ledger.resume();
    ledger.wait(|books| books.requests() == 19);
    let logged = backend.stop();
    assert_eq!(ledger.books().totals(), (19, 19, 0));
    let warned = |line: &&Value| line["level"] == "WARN";
    let warnings: Vec<_> = logged.iter().filter(warned).collect();
    assert_eq!(warnings.len(), 1, "one a minute: {warnings:?}");
    assert_eq!(warnings[0]["message"], "cannot send observations; they are kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_good_is_set_aside() {
    let (ledger, folder) = (Ledger::start(), tempfile::tempdir().unwrap());
    ledger.books().mood = Mood::Refuses(Code::InvalidArgument);
    let backend = Backend::start(&ledger, folder.path(), &[]);
    ask(&backend, 1..2).await;
    wait_for(|| folder.path().join("refused").exists());
    ledger.books().mood = Mood::Takes;
    ask(&backend, 2..3).await;
    // The next batch says that one is missing; its units are reported again when they come again.
    ledger.wait(|books| books.omitted.batches > 0);
    ask(&backend, 1..3).await;
    ledger.wait(|books| books.totals().1 == 2);
    backend.stop();
}

/// What is in the spool: source and sequence, and how many requests it counts.
fn batches(folder: &Path) -> Vec<(Vec<u8>, u64, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "batch")
            // It may be sent just now.
            && let Ok(bytes) = fs::read(&path)
        {
            let batch = ObservationBatch::decode(&bytes[48..]).unwrap();
            let statistics = batch.series.iter().flat_map(|series| &series.statistics);
            let errors = statistics.filter(|statistics| statistics.metric == "error");
            let count = errors.map(|statistics| statistics.moments.unwrap().count).sum();
            found.push((batch.source, batch.sequence, count));
        }
    }
    found
}

/// Requests that are counted in what is taken or in the spool.
fn safe(ledger: &Ledger, folder: &Path) -> u64 {
    // The spool first: what is sent meanwhile is in both.
    let spooled = batches(folder);
    let books = ledger.books();
    let spooled = spooled
        .into_iter()
        .filter(|(source, sequence, _)| !books.taken.contains(&(source.clone(), *sequence)));
    books.requests() + spooled.map(|batch| batch.2).sum::<u64>()
}

#[track_caller]
fn wait_for(until: impl Fn() -> bool) {
    let begun = Instant::now();
    while !until() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}");
        sleep(Duration::from_millis(5));
    }
}

/// Killed again and again, in all states of the control plane. Half of the time what was asked is in the spool or taken when
/// the kill comes: then nothing may be missing. The other half it comes in the middle: then what was in the spool must
/// arrive. Nothing arrives twice.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_that_was_written_and_sends_nothing_twice() {
    let (ledger, folder) = (Ledger::start(), tempfile::tempdir().unwrap());
    let mut written = BTreeSet::new();
    let (mut certain, mut uncertain) = (0, 0);
    let moods = [Mood::Takes, Mood::LosesTheAnswer, Mood::Refuses(Code::Unavailable), Mood::Hangs];
    for round in 0..16_u64 {
        let mut backend = Backend::start(&ledger, folder.path(), &["--observations-interval-ms", "10"]);
        ledger.books().mood = moods[usize::try_from(round).unwrap() % moods.len()];
        let before = safe(&ledger, folder.path());
        let units = round * 100 + 1..round * 100 + 41;
        let in_the_middle = round / 4 % 2 == 1;
        if in_the_middle {
            let asking = ask(&backend, units);
            // Somewhere in between: what was answered by then is anybody's guess.
            let _ = tokio::time::timeout(Duration::from_millis(3 * round), asking).await;
            uncertain += 40;
        } else {
            ask(&backend, units).await;
            certain += 40;
            wait_for(|| safe(&ledger, folder.path()) == before + 40);
        }
        backend.running.child.kill().unwrap();
        backend.running.child.wait().unwrap();
        written.extend(batches(folder.path()).into_iter().map(|(source, sequence, _)| (source, sequence)));
    }
    ledger.books().mood = Mood::Takes;
    let backend = Backend::start(&ledger, folder.path(), &[]);
    ledger.wait(|books| written.is_subset(&books.taken));
    wait_for(|| batches(folder.path()).is_empty());
    backend.stop();
    let books = ledger.books();
    assert_eq!(books.again, 0, "what it has was sent again");
    let requests = books.requests();
    assert!((certain..=certain + uncertain).contains(&requests), "{certain} {uncertain} {requests}");
    let of_certain_rounds = |unit: &&u64| (*unit / 400).is_multiple_of(2);
    let exposed: BTreeSet<u64> = books.exposures.values().flat_map(BTreeMap::keys).copied().collect();
    assert_eq!(exposed.iter().filter(of_certain_rounds).count() as u64, certain);
    assert!(books.resumes >= 17 && books.reports.len() > 16, "{} {}", books.resumes, books.reports.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sigterm_all_is_sent_or_kept() {
    let (mut ledger, folder) = (Ledger::start(), tempfile::tempdir().unwrap());
    // Nothing is written or sent by itself.
    let rarely = ["--observations-interval-ms", "600000"];
    let backend = Backend::start(&ledger, folder.path(), &rarely);
    ask(&backend, 1..11).await;
    assert!(ledger.books().reports.is_empty() && batches(folder.path()).is_empty());
    backend.stop();
    assert_eq!(ledger.books().totals(), (10, 10, 0));

    let backend = Backend::start(&ledger, folder.path(), &rarely);
    ledger.kill();
    ask(&backend, 11..21).await;
    let logged = backend.stop();
    assert!(
        logged.iter().any(|line| line["message"] == "observations are kept and sent after the next start")
    );
    assert_eq!(batches(folder.path()).len(), 1);
    ledger.resume();
    let backend = Backend::start(&ledger, folder.path(), &rarely);
    ledger.wait(|books| books.requests() == 20);
    backend.stop();
    assert_eq!(ledger.books().totals(), (20, 20, 0));
}

/// Bytes on the disk of all files in a folder.
fn on_disk(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata());
    files.filter_map(Result::ok).map(|file| file.blocks() * 512).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_and_memory_are_bounded_while_the_control_plane_is_away() {
    let (mut ledger, folder) = (Ledger::start(), tempfile::tempdir().unwrap());
    ledger.kill();
    let limit = 128 << 10;
    let spool = limit.to_string();
    let arguments = ["--observations-interval-ms", "10", "--observations-spool-bytes", &spool];
    let backend = Arc::new(Backend::start(&ledger, folder.path(), &arguments));
    ask(&backend, 1..2).await;
    wait_for(|| !batches(folder.path()).is_empty());
    let before = most_memory(backend.running.child.id());
    let mut asking = JoinSet::new();
    // They would be 300 KB, and each batch takes a block at least.
    for part in 0..12_u64 {
        let backend = Arc::clone(&backend);
        asking.spawn(async move { ask(&backend, part * 1000 + 2..part * 1000 + 1002).await });
    }
    // What is being replaced is there twice for a moment.
    let most = limit + limit / 4 + (64 << 10);
    while !asking.is_empty() {
        // A look at the disk at least so often.
        if let Ok(Some(asked)) = tokio::time::timeout(Duration::from_millis(20), asking.join_next()).await {
            asked.unwrap();
        }
        let bytes = on_disk(folder.path());
        assert!(bytes <= most, "{bytes} bytes on the disk");
    }
    let grown = most_memory(backend.running.child.id()) - before;
    assert!(grown < 48 << 20, "{grown} bytes more than {before}");
    ledger.resume();
    Arc::into_inner(backend).unwrap().stop();
    let backend = Backend::start(&ledger, folder.path(), &[]);
    // Every request is counted, every unit is there or said to be missing.
    ledger.wait(|books| books.requests() == 12_001);
    let books = ledger.books();
    assert_eq!((books.again, books.omitted.requests, books.omitted.batches), (0, 0, 0));
    let reported = books.totals().1 + books.omitted.units;
    assert!(books.omitted.units > 0 && reported >= 12_001, "{reported} {:?}", books.omitted);
    drop(books);
    backend.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_goes_away_costs_no_request() {
    let (ledger, folder) = (Ledger::start(), tempfile::tempdir().unwrap());
    let spool = folder.path().join("spool");
    let backend = Backend::start(&ledger, &spool, &[]);
    ask(&backend, 1..2).await;
    ledger.wait(|books| books.requests() == 1);
    wait_for(|| batches(&spool).is_empty());
    let away = folder.path().join("away");
    fs::rename(&spool, &away).unwrap();
    fs::write(&spool, "in its place").unwrap();
    ask(&backend, 2..42).await;
    sleep(Duration::from_millis(200));
    assert_eq!(ledger.books().requests(), 1, "nothing is sent that was not written down");
    fs::remove_file(&spool).unwrap();
    fs::rename(&away, &spool).unwrap();
    ledger.wait(|books| books.requests() == 41);
    let logged = backend.stop();
    let warnings: Vec<_> = logged.iter().filter(|line| line["level"] == "WARN").collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(ledger.books().totals(), (41, 41, 0));
}

#[test]
fn a_folder_that_cannot_be_used_is_said_at_the_start() {
    let (ledger, folder) = (Ledger::start(), tempfile::tempdir().unwrap());
    let backend = Backend::start(&ledger, folder.path(), &[]);
    let start = |folder: &Path, to: &str| {
        let mut command = command(&committed_models());
        command.args(["--observations-to", to, "--observations-dir"]).arg(folder);
        refused(&mut command)
    };
    let second = start(folder.path(), &ledger.url());
    assert!(second.ends_with("another process does; give each its own --observations-dir"), "{second}");
    backend.stop();
    let text = folder.path().join("text");
    fs::write(&text, "").unwrap();
    let no_folder = start(&text, &ledger.url());
    assert!(no_folder.contains(&format!("cannot keep observations in {}", text.display())), "{no_folder}");
    let mut without = command(&committed_models());
    let without = refused(without.args(["--observations-to", &ledger.url()]));
    assert!(without.contains("--observations-to needs --observations-dir"), "{without}");
    for to in ["https://127.0.0.1:1", "127.0.0.1:9000", "http://", "/"] {
        let refused = start(folder.path(), to);
        assert!(refused.contains(&format!("--observations-to {to:?}")), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_costs_what_was_in_it_and_no_more() {
    let (mut ledger, folder) = (Ledger::start(), tempfile::tempdir().unwrap());
    let arguments = ["--observations-interval-ms", "10"];
    ledger.kill();
    let mut backend = Backend::start(&ledger, folder.path(), &arguments);
    for unit in 1..4 {
        ask(&backend, unit..unit + 1).await;
        wait_for(|| batches(folder.path()).len() as u64 == unit);
    }
    backend.running.child.kill().unwrap();
    backend.running.child.wait().unwrap();
    let mut files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "batch"));
    files.sort();
    let mut bytes = fs::read(&files[1]).unwrap();
    bytes[60] ^= 4;
    fs::write(&files[1], bytes).unwrap();
    ledger.resume();
    let backend = Backend::start(&ledger, folder.path(), &arguments);
    ledger.wait(|books| books.requests() == 2 && books.omitted.batches == 1);
    assert_eq!(ledger.books().totals(), (2, 2, 0));
    assert!(folder.path().join("damaged").exists());
    assert!(backend.stop().iter().any(|line| line["level"] == "ERROR"));
}

/// A `traceparent` whose span has this number.
fn traceparent(span: u64, sampled: bool) -> String {
    format!("00-0af7651916cd43dd8448eb211c80319c-{span:016x}-0{}", u8::from(sampled))
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_sampled_traces_are_told_one_by_one_and_those_beyond_an_intervals_most_are_counted() {
    const MOST: u64 = 512;
    const CANDIDATE: u64 = 9_999;
    let (ledger, folder) = (Ledger::start(), tempfile::tempdir().unwrap());
    // One batch: when it is told to stop.
    let backend = Backend::start(&ledger, folder.path(), &["--observations-interval-ms", "600000"]);
    let ask = async |span, sampled, path: &str, body: String| {
        let request = backend.client.post(format!("http://{}{path}", backend.running.address)).body(body);
        let request = request.header("traceparent", traceparent(span, sampled));
        // An epoch is a release's.
        let decided = EvaluationContext { epoch: u64::from(span == CANDIDATE), ..context(span, "a") };
        request.header("x-halftone-context", header(&decided)).send().await.unwrap()
    };
    let digit = || request(&held_out()[..1]);
    let answer = ask(1, true, DIGITS, digit()).await;
    assert_eq!(answer.headers()["x-halftone-trace"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(ask(2, false, DIGITS, digit()).await.headers()["x-halftone-trace"].len(), 32);
    assert_eq!(ask(3, true, DIGITS, "{".into()).await.status(), 400);
    assert_eq!(ask(4, true, "/v2/models/nobody/infer", digit()).await.status(), 404);
    // Over gRPC: one that is answered, one that is refused, and one of no model.
    let channel = Channel::from_shared(format!("http://{}", backend.running.address)).unwrap();
    let mut client = GrpcInferenceServiceClient::new(channel.connect().await.unwrap());
    for (span, message) in [
        (5, grpc::digit("")),
        (6, ModelInferRequest { inputs: Vec::new(), ..grpc::digit("") }),
        (7, ModelInferRequest { model_name: "nobody".into(), ..grpc::digit("") }),
    ] {
        let mut call = tonic::Request::new(message);
        call.metadata_mut().insert("traceparent", traceparent(span, true).parse().unwrap());
        let _ = client.model_infer(call).await;
    }
    for span in 8..MOST + 8 {
        assert_eq!(ask(span, true, DIGITS, "{".into()).await.status(), 400);
    }
    // A candidate's is told all the same, in the place of the last mistake; another mistake is not.
    assert_eq!(ask(CANDIDATE, true, DIGITS, digit()).await.status(), 200);
    assert_eq!(ask(9_998, true, DIGITS, "{".into()).await.status(), 400);
    backend.stop();

    let books = ledger.books();
    let told: BTreeMap<u64, &TracedRequest> = books
        .traced
        .iter()
        .map(|of| (u64::from_be_bytes(of.parent_id.as_slice().try_into().unwrap()), of))
        .collect();
    assert_eq!(told.len(), books.traced.len(), "each once");
    assert_eq!(u64::try_from(told.len()).unwrap(), MOST);
    // Six before them, and two behind.
    assert_eq!(books.omitted, Omitted { traced: 8, ..Omitted::default() });
    let answers = [1, 3, 4, 5, 6, 7, CANDIDATE].map(|span| told[&span].answer);
    let expected = [
        Some(Answer::HttpStatus(200)),
        Some(Answer::HttpStatus(400)),
        Some(Answer::HttpStatus(404)),
        Some(Answer::GrpcCode(0)),
        Some(Answer::GrpcCode(3)),
        Some(Answer::GrpcCode(5)),
        Some(Answer::HttpStatus(200)),
    ];
    assert_eq!(answers, expected);
    assert!(!told.contains_key(&2), "not sampled");
    assert!(!told.contains_key(&9_998), "a client's mistake");
    let of_none = told[&4];
    assert_eq!((of_none.model.as_str(), of_none.version.as_str()), ("", ""));
    assert_eq!((&of_none.evaluation, of_none.duration_us), (&Some(context(4, "a")), 0));
    let first = told[&1];
    assert_eq!(first.evaluation, Some(context(1, "a")));
    assert_eq!((first.model.as_str(), first.version.as_str(), &told[&5].evaluation), ("digits", "3", &None));
    assert!(first.duration_us > 0 && first.begun_ms.abs_diff(decided_ms(1)) < 600_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_left_before_its_answer_is_told_as_that_and_is_no_observation() {
    let (ledger, folder, models) =
        (Ledger::start(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    onnx::write_slow(models.path());
    let backend = Backend::serving(models.path(), &ledger, folder.path(), &[]);
    let (json, binary) = long();
    let body = [json.as_bytes(), &binary].concat();
    // It may leave too early, or be answered: it waits a little longer each time.
    let (begun, mut patience) = (Instant::now(), Duration::from_millis(50));
    while !ledger.books().traced.iter().any(|of| of.answer.is_none()) {
        assert!(begun.elapsed() < PATIENCE, "{:?}", ledger.books().traced);
        let url = format!("http://{}/v2/models/slow/infer", backend.running.address);
        let request = backend.client.post(url).body(body.clone()).timeout(patience);
        let request = request.header("traceparent", traceparent(7, true));
        let _ = request.header("Inference-Header-Content-Length", json.len()).send().await;
        patience += Duration::from_millis(50);
    }
    backend.stop();
    let books = ledger.books();
    let answered = books.traced.iter().filter(|of| of.answer.is_some()).count();
    assert_eq!(books.requests(), u64::try_from(answered).unwrap());
    assert!(books.traced.iter().all(|of| of.model == "slow" && of.duration_us > 0));
}
