//! The ledger of a real `halftone serve`: what was acknowledged counts once, whatever happens, and nonsense counts never.

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use halftone_proto::v1::{
    EvaluationContext, ObservationAck, ObservationBatch, ObservationSource, SeriesObservations, Statistics,
    observations_client::ObservationsClient,
};
use halftone_tests::{
    Backend, ControlPlane, Paths, digits, disk,
    observed::{self, Request, batch, name, now_ms, series},
    traffic,
};
use prost::Message;
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::sync::watch;
use tonic::{
    Code, Request as Call, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel,
};
use tonic_prost::ProstCodec;

const RELEASE: &str = "/v1/observations?ruleset=digits&release=canary";

async fn start() -> Result<(ControlPlane, TempDir)> {
    let folder = tempfile::tempdir()?;
    Ok((ControlPlane::start(&Paths::find()?, folder.path(), 0, 0).await?, folder))
}

async fn client(xds: SocketAddr) -> Result<ObservationsClient<Channel>> {
    Ok(ObservationsClient::new(Channel::from_shared(format!("http://{xds}"))?.connect().await?))
}

async fn report(xds: SocketAddr, batch: &ObservationBatch) -> Result<u64, Status> {
    let mut client = client(xds).await.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(client.report(batch.clone()).await?.into_inner().sequence)
}

async fn resume(xds: SocketAddr, source: u8) -> Result<u64, Status> {
    let mut client = client(xds).await.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(client.resume(ObservationSource { source: name(source) }).await?.into_inner().sequence)
}

/// Requests of `count` units from `first` on, spread over all hashes; every tenth fails.
fn requests(first: u64, count: u64) -> Vec<Request> {
    let time_ms = now_ms() - 1_000;
    let request = |i: u64| Request {
        unit: i.wrapping_mul(0x9E37_79B9_7F4A_7C15),
        time_ms,
        latency: (!i.is_multiple_of(10)).then(|| 0.01 + (i % 90) as f64 / 1e3),
    };
    (first..first + count).map(request).collect()
}

fn arm<'a>(release: &'a Value, epoch: usize, arm: &str) -> &'a Value {
    &release["epochs"][epoch]["arms"][arm]
}

#[tokio::test]
async fn what_comes_twice_late_or_from_two_replicas_counts_once() -> Result<()> {
    let (control_plane, _folder) = start().await?;
    let xds = control_plane.xds;
    // Two backends that saw the same hundred units in the control, and one of them others in the candidate.
    let shared = || vec![series(1, "control", &requests(0, 100))];
    let one = [batch(1, 3, shared()), batch(1, 4, vec![series(1, "treatment", &requests(1_000, 50))])];
    let other = [batch(2, 1, shared())];
    assert_eq!(resume(xds, 1).await?, 0);
    assert_eq!(report(xds, &one[0]).await?, 3, "it need not begin at 1");
    assert_eq!(report(xds, &one[0]).await?, 3, "again");
    assert_eq!(report(xds, &other[0]).await?, 1);
    assert_eq!(report(xds, &one[1]).await?, 4);
    assert_eq!(report(xds, &one[0]).await?, 4, "late");
    let known = control_plane.get(RELEASE).await?;
    let control = arm(&known, 0, "control");
    assert_eq!(
        (&control["units"], &control["bad"]["error"], &control["both"]),
        (&100.into(), &10.into(), &0.into())
    );
    assert_eq!(control["first_latency"]["infinite"], 10, "units without an answer");
    assert_eq!(control["statistics"]["latency"]["count"], 180, "requests are of both");
    let mean = control["statistics"]["error"]["mean"].as_f64().context("no mean")?;
    assert!((mean - 0.1).abs() < 1e-12, "{mean}");
    assert_eq!(arm(&known, 0, "treatment")["units"], 50);
    assert_eq!(known["series"].as_array().map(Vec::len), Some(2));
    let all = control_plane.get("/v1/observations").await?;
    assert_eq!((&all["releases"][0]["release"], &all["omitted"]["requests"]), (&"canary".into(), &3.into()));

    // A restart of either side: the control plane's changes nothing, and a backend that begins anew is another source.
    let control_plane = control_plane.crash_and_restart(Duration::ZERO).await?;
    assert_eq!(control_plane.get(RELEASE).await?, known);
    assert_eq!((resume(xds, 1).await?, resume(xds, 2).await?), (4, 1));
    assert_eq!(report(xds, &one[1]).await?, 4);
    assert_eq!(control_plane.get(RELEASE).await?, known);
    report(xds, &batch(3, 1, shared())).await?;
    let after = control_plane.get(RELEASE).await?;
    assert_eq!(arm(&after, 0, "control")["units"], 100);
    assert_eq!(arm(&after, 0, "control")["statistics"]["latency"]["count"], 270);

    for (path, status) in [
        ("/v1/observations?ruleset=digits&release=other", 404),
        ("/v1/observations?release=canary", 400),
        ("/v1/observations?ruleset=digits&release=canary&arm=x", 400),
    ] {
        assert_eq!(
            control_plane.request(reqwest::Method::GET, path, "").await?.status().as_u16(),
            status,
            "{path}"
        );
    }
    control_plane.stop()
}

/// A backend that sends batches until all are acknowledged, and asks where to go on when it is not certain.
struct Replayed {
    source: u8,
    batches: Arc<Vec<ObservationBatch>>,
    acknowledged: watch::Sender<u64>,
}

impl Replayed {
    async fn send(self, xds: SocketAddr) {
        let mut known = None;
        loop {
            let next = match known {
                Some(known) => known,
                None => match resume(xds, self.source).await {
                    Ok(sequence) => {
                        assert!(
                            sequence >= *self.acknowledged.borrow(),
                            "{sequence}: what was acknowledged is lost"
                        );
                        // The answer may have been lost of what is kept.
                        self.acknowledged.send_replace(sequence);
                        sequence
                    }
                    Err(_) => {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        continue;
                    }
                },
            };
            let index = usize::try_from(next).unwrap_or(usize::MAX);
            let Some(batch) = self.batches.get(index) else { return };
            known = match report(xds, batch).await {
                Ok(sequence) => {
                    self.acknowledged.send_replace(sequence);
                    Some(sequence)
                }
                Err(_) => None,
            };
        }
    }
}

#[tokio::test]
async fn killed_fifty_times_it_has_each_acknowledged_record_once() -> Result<()> {
    const KILLS: u64 = 50;
    const UNITS: u64 = 500;
    // So many that they do not come to an end before the last kill.
    const BATCHES: u64 = 4 * KILLS;
    let (mut control_plane, _folder) = start().await?;
    let xds = control_plane.xds;
    let mut backends = Vec::new();
    for source in 0..2 {
        let batches = (0..BATCHES).map(|index| {
            // The sources share half of their units.
            let first = (index + u64::from(source) * BATCHES / 2) * UNITS;
            batch(source, index + 1, vec![series(1, "control", &requests(first, UNITS))])
        });
        let (acknowledged, progress) = watch::channel(0);
        let backend = Replayed { source, batches: Arc::new(batches.collect()), acknowledged };
        backends.push((tokio::spawn(backend.send(xds)), progress));
    }
    let mut random = 12_345u64;
    for kill in 1..=KILLS {
        for (_, progress) in &mut backends {
            progress.wait_for(|acknowledged| *acknowledged >= 2 * kill).await.context("a backend gave up")?;
        }
        // Somewhere in what follows.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        control_plane = {
            tokio::time::sleep(Duration::from_micros(random >> 50)).await;
            control_plane.crash_and_restart(Duration::ZERO).await?
        };
    }
    for (sending, progress) in backends {
        sending.await?;
        assert_eq!(*progress.borrow(), BATCHES);
    }
    let known = control_plane.get(RELEASE).await?;
    let control = arm(&known, 0, "control");
    let units = BATCHES * UNITS * 3 / 2;
    assert_eq!((&control["units"], &control["bad"]["error"]), (&units.into(), &(units / 10).into()));
    assert_eq!(control["first_latency"]["infinite"], units / 10);
    assert_eq!(control["statistics"]["error"]["count"], 2 * BATCHES * UNITS);
    assert_eq!(control["statistics"]["latency"]["count"], 2 * BATCHES * UNITS * 9 / 10);
    assert_eq!(control_plane.get("/v1/observations").await?["omitted"]["requests"], 2 * BATCHES);
    control_plane.stop()
}

/// A lie: what is changed of a batch that is sound, and what the answer has to say.
type Lie = (fn(&mut ObservationBatch), &'static str);

/// Whoever reaches a backend past the filter can send any names. Those of what is published count on, whatever came before.
#[tokio::test]
async fn names_that_were_made_up_take_no_place_from_those_that_are_published() -> Result<()> {
    let (control_plane, _folder) = start().await?;
    let one = |number: u64| {
        let mut observations = series(1, "control", &requests(number, 1));
        if let Some(series) = &mut observations.series {
            series.release = format!("made up {number}");
        }
        observations
    };
    report(control_plane.xds, &batch(1, 1, (1..=1_000).map(one).collect())).await?;
    let releases = control_plane.get("/v1/observations").await?;
    let count = releases["releases"].as_array().map_or(0, Vec::len);
    ensure!((1..300).contains(&count), "{count} releases");

    let text = "version: v1\nname: digits\ndefault: v1\nrules: []\nexperiments: [{name: colours, arms: [{name: red}, {name: blue}]}]\n";
    let put = control_plane.request(reqwest::Method::PUT, "/v1/rulesets/digits", text).await?;
    ensure!(put.status().is_success(), "{}", put.text().await?);
    let revision = put.json::<Value>().await?["revision"].as_u64().context("no revision")?;
    let mut observations = series(revision, "red", &requests(0, 100));
    if let Some(series) = &mut observations.series {
        (series.release, series.target) = ("colours".to_owned(), "v1".to_owned());
    }
    report(control_plane.xds, &batch(1, 2, vec![observations])).await?;
    let known = control_plane.get("/v1/observations?ruleset=digits&release=colours").await?;
    assert_eq!(arm(&known, 0, "red")["units"], 100);
    control_plane.stop()
}

fn part(batch: &mut ObservationBatch) -> &mut SeriesObservations {
    &mut batch.series[0]
}

fn metric<'a>(batch: &'a mut ObservationBatch, metric: &str) -> &'a mut Statistics {
    part(batch).statistics.iter_mut().find(|of| of.metric == metric).expect("it is there")
}

macro_rules! of {
    ($batch:ident, $metric:literal, $part:ident) => {
        metric($batch, $metric).$part.as_mut().expect("it is there")
    };
}

const HOUR: u64 = 3_600_000;

const LIES: &[Lie] = &[
    // Who and when.
    (|batch| batch.source.truncate(15), "16 random bytes"),
    (|batch| batch.source.fill(0), "16 random bytes"),
    (|batch| batch.sequence = 0, "`sequence` is 0"),
    (|batch| batch.sequence = u64::MAX, "`sequence` is 18446744073709551615"),
    (|batch| batch.begun_ms = batch.ended_ms + 1, "before it had begun"),
    (
        |batch| {
            batch.begun_ms += HOUR;
            batch.ended_ms += HOUR;
        },
        "in the future: set the backend's clock",
    ),
    (
        |batch| {
            batch.begun_ms -= HOUR;
            batch.ended_ms -= HOUR;
        },
        "series[0]: exposures[0]: it was decided at",
    ),
    (|batch| part(batch).exposures[3].time_ms -= HOUR, "series[0]: exposures[3]: it was decided at"),
    (|batch| part(batch).bad_events[0].time_ms += HOUR, "series[0]: bad_events[0]: it was decided at"),
    (|batch| part(batch).exposures[0].time_ms = u64::MAX, "it was decided at"),
    // Which.
    (|batch| part(batch).series = None, "series[0]: it has no `series`"),
    (|batch| batch.series.push(batch.series[0].clone()), "series[1]: it is there twice"),
    (|batch| batch.series = vec![SeriesObservations::default(); 1_025], "1025 series"),
    (|batch| part(batch).series.as_mut().expect("").arm = "x".repeat(513), "`arm` has 513 bytes"),
    (|batch| part(batch).series.as_mut().expect("").model = "a\nb".into(), "control character"),
    (|batch| part(batch).series.as_mut().expect("").release.clear(), "no `release`"),
    (|batch| part(batch).series.as_mut().expect("").arm.clear(), "no `arm`"),
    (|batch| part(batch).series.as_mut().expect("").epoch = u64::MAX, "`epoch`"),
    // Units.
    (|batch| part(batch).exposures[1].latency = Some(f64::NAN), "exposures[1]: its latency is NaN"),
    (|batch| part(batch).exposures[1].latency = Some(f64::INFINITY), "its latency is inf"),
    (|batch| part(batch).exposures[1].latency = Some(-0.5), "its latency is -0.5"),
    (|batch| part(batch).exposures[1].outcome = 16, "no outcome 16"),
    (|batch| part(batch).bad_events[0].metric = "sad".into(), "no bad events of \"sad\""),
    // Statistics.
    (|batch| metric(batch, "error").metric = "latency".into(), "there twice"),
    (|batch| metric(batch, "error").metric.clear(), "no name"),
    (|batch| metric(batch, "error").moments = None, "(\"error\"): it has no `moments`"),
    (|batch| metric(batch, "error").histogram = None, "it has no `histogram`"),
    (|batch| of!(batch, "latency", moments).mean = f64::NAN, "no finite number"),
    (|batch| of!(batch, "latency", moments).m2 = -1.0, "negative sum of squares"),
    (|batch| of!(batch, "latency", moments).m2 = 1e9, "m2"),
    (|batch| of!(batch, "latency", moments).mean = 99.0, "mean"),
    (|batch| of!(batch, "latency", moments).max = 99.0, "its buckets from"),
    (|batch| of!(batch, "latency", moments).min = 1e-9, "its buckets from"),
    (|batch| of!(batch, "latency", moments).min = -1.0, "its values are from -1 to"),
    (|batch| of!(batch, "latency", moments).count += 1, "its histogram counts 90 values, its moments 91"),
    (|batch| of!(batch, "latency", moments).count = u64::MAX, "its moments count"),
    (|batch| of!(batch, "latency", histogram).nan += 1, "counts 91 values"),
    (|batch| of!(batch, "latency", histogram).negative = u64::MAX, "more than a bucket can have"),
    (|batch| of!(batch, "latency", histogram).counts[0] = 0, "a bucket with no values"),
    (|batch| of!(batch, "latency", histogram).buckets.reverse(), "do not ascend"),
    (|batch| of!(batch, "latency", histogram).buckets[0] = i32::MIN, "bucket -2147483648"),
    (|batch| of!(batch, "latency", histogram).error_ppm = 5_000, "`error_ppm` of 5000"),
    (|batch| of!(batch, "latency", histogram).counts.truncate(2), "2 counts"),
    (|batch| of!(batch, "latency", units).numerators[0] = f64::NAN, "NaN of"),
    (|batch| of!(batch, "latency", units).buckets[0] = 1_024, "ascend"),
    (|batch| of!(batch, "latency", units).denominators[0] = 1_000, "its unit sums are of"),
    (|batch| of!(batch, "latency", units).numerators[0] = 1_000.0, "its unit sums are 1"),
    // More bad ones than there were.
    (|batch| of!(batch, "error", moments).mean = 1.0, "its unit sums are 10 together, and its mean is 1"),
    (
        |batch| {
            of!(batch, "error", moments).mean = 1.0;
            metric(batch, "error").units = None;
        },
        "its histogram has 10 events of 100",
    ),
    (|batch| of!(batch, "error", moments).max = 2.0, "its buckets from"),
    (
        |batch| {
            let units = of!(batch, "error", units);
            let at = units.numerators.iter().position(|sum| *sum == 0.0).expect("it is there");
            let from = units.numerators.iter().position(|sum| *sum > 0.0).expect("it is there");
            units.numerators[at] += 2.0;
            units.numerators[from] -= 2.0;
        },
        "negative",
    ),
    (
        |batch| {
            let units = of!(batch, "error", units);
            let one = units.numerators.iter().position(|sum| *sum > 0.0).expect("it is there");
            let other = units.numerators.iter().rposition(|sum| *sum > 0.0).expect("it is there");
            units.numerators[one] += 1.0;
            units.numerators[other] -= 1.0;
        },
        "events of 1 requests",
    ),
];

#[tokio::test]
async fn a_backend_that_lies_is_refused_and_changes_nothing() -> Result<()> {
    let (control_plane, _folder) = start().await?;
    let xds = control_plane.xds;
    report(xds, &batch(1, 1, vec![series(1, "control", &requests(0, 100))])).await?;
    let before = (control_plane.get(RELEASE).await?, control_plane.get("/v1/observations").await?);
    for (index, (lie, say)) in LIES.iter().enumerate() {
        let sound = batch(1, 2, vec![series(1, "control", &requests(0, 100))]);
        let mut batch = sound.clone();
        lie(&mut batch);
        ensure!(format!("{batch:?}") != format!("{sound:?}"), "lie {index} is none");
        let status = report(xds, &batch).await.expect_err(say);
        assert_eq!(status.code(), Code::InvalidArgument, "{say}: {status}");
        assert!(status.message().contains(say), "lie {index}: {say}: {status}");
    }
    assert_eq!((control_plane.get(RELEASE).await?, control_plane.get("/v1/observations").await?), before);
    assert_eq!(resume(xds, 1).await?, 1);
    // Values that are none are no lie: a broken model has them.
    let mut sound = batch(1, 2, vec![series(1, "control", &requests(0, 100))]);
    let values = [(1, f64::NAN), (2, f64::INFINITY), (3, f64::NEG_INFINITY), (4, -3.0), (5, 1e140), (6, 0.0)];
    part(&mut sound).statistics.push(observed::statistics("output:logits", &values));
    part(&mut sound).statistics.push(observed::statistics("latency_failed", &[]));
    assert_eq!(report(xds, &sound).await?, 2);
    let known = control_plane.get(RELEASE).await?;
    let logits = &arm(&known, 0, "control")["statistics"]["output:logits"];
    assert_eq!((&logits["count"], &logits["rejected"]), (&3.into(), &3.into()));
    control_plane.stop()
}

#[tokio::test]
async fn without_room_nothing_is_taken_and_nothing_is_lost() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let paths = Paths { serve_launcher: disk::limitable(), ..Paths::find()? };
    let control_plane = ControlPlane::start(&paths, folder.path(), 0, 0).await?;
    let (xds, pid) = (control_plane.xds, control_plane.process().pid());
    let of =
        |sequence: u64| batch(1, sequence, vec![series(1, "control", &requests(sequence * 5_000, 5_000))]);
    report(xds, &of(1)).await?;
    for sequence in [2, 3] {
        let before = control_plane.get(RELEASE).await?;
        // It is the longest file.
        let log = std::fs::metadata(folder.path().join("data/ledger.db-wal"))?.len();
        disk::limit(pid, Some(log))?;
        for _ in 0..3 {
            let status = report(xds, &of(sequence)).await.expect_err("there is no room");
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            assert!(
                status.message().contains("nothing was taken") && status.message().contains("--data"),
                "{status}"
            );
        }
        assert_eq!(control_plane.get(RELEASE).await?, before);
        assert_eq!(resume(xds, 1).await?, sequence - 1);
        disk::limit(pid, None)?;
        assert_eq!(report(xds, &of(sequence)).await?, sequence, "without a restart");
    }
    let control_plane = control_plane.crash_and_restart(Duration::ZERO).await?;
    assert_eq!(arm(&control_plane.get(RELEASE).await?, 0, "control")["units"], 15_000);
    control_plane.stop()
}

#[tokio::test]
async fn a_second_process_leaves_the_ledger_alone() -> Result<()> {
    let (control_plane, folder) = start().await?;
    let second = ControlPlane::start(&Paths::find()?, folder.path(), 0, 0).await;
    let error = second.err().context("it started")?.to_string();
    assert!(error.contains("another control plane runs on the folder"), "{error}");
    report(control_plane.xds, &batch(1, 1, vec![series(1, "control", &requests(0, 10))])).await?;
    assert_eq!(arm(&control_plane.get(RELEASE).await?, 0, "control")["units"], 10);
    control_plane.stop()
}

#[tokio::test]
async fn with_a_token_only_who_brings_it_reports() -> Result<()> {
    const TOKEN: &str = "a-secret-of-some-length";
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("token");
    std::fs::write(&file, TOKEN)?;
    let serve_flags = vec!["--token-file".into(), file.into()];
    let paths = Paths { serve_flags, ..Paths::find()? };
    let control_plane = ControlPlane::start(&paths, folder.path(), 0, 0).await?;
    let mut client = client(control_plane.xds).await?;
    let sound = batch(1, 1, vec![series(1, "control", &requests(0, 10))]);
    for authorization in
        [None, Some("Bearer a-secret-of-some-other-length"), Some("Basic a-secret-of-some-length")]
    {
        let mut call = Call::new(sound.clone());
        if let Some(authorization) = authorization {
            call.metadata_mut().insert("authorization", authorization.parse()?);
        }
        let status = client.report(call).await.expect_err("without the token");
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert!(status.message().contains("token"), "{status}");
    }
    let mut call = Call::new(sound);
    call.metadata_mut().insert("authorization", format!("Bearer {TOKEN}").parse()?);
    assert_eq!(client.report(call).await?.into_inner().sequence, 1);
    control_plane.stop()
}

#[tokio::test]
async fn a_message_of_sixteen_mebibytes_is_taken_and_a_larger_one_is_not() -> Result<()> {
    let (control_plane, _folder) = start().await?;
    let xds = control_plane.xds;
    let of = |sequence, units| {
        let mut series = series(1, "control", &requests(0, units));
        series.bad_events.clear();
        batch(1, sequence, vec![series])
    };
    let length = |batch: &ObservationBatch| batch.encoded_len();
    // Statistics take the same bytes, or nearly, whatever the number of units.
    let each = (length(&of(1, 20_000)) - length(&of(1, 10_000))) as u64 / 10_000 + 1;
    let units = (16 << 20) / each - 10_000;
    let fits = of(1, units);
    ensure!((15 << 20..=16 << 20).contains(&length(&fits)), "{} bytes", length(&fits));
    assert_eq!(report(xds, &fits).await?, 1);
    let too_large = of(2, units * 5 / 4);
    let status = report(xds, &too_large).await.expect_err("it is too large");
    assert!([Code::OutOfRange, Code::ResourceExhausted].contains(&status.code()), "{status}");
    assert_eq!(arm(&control_plane.get(RELEASE).await?, 0, "control")["units"], units);
    control_plane.stop()
}

#[tokio::test]
async fn more_calls_than_there_is_room_for_are_told_to_come_again() -> Result<()> {
    const ROOM: usize = 8;
    let (control_plane, _folder) = start().await?;
    let xds = control_plane.xds;
    let channel = Channel::from_shared(format!("http://{xds}"))?.connect().await?;
    // Calls whose message never comes. Each is under way once the next one was let in.
    let mut stuck = Vec::new();
    let full = loop {
        let never = futures::stream::pending::<ObservationBatch>();
        let mut grpc = Grpc::new(channel.clone());
        stuck.push(tokio::spawn(async move {
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let path = PathAndQuery::from_static("/halftone.v1.Observations/Report");
            let codec = ProstCodec::<ObservationBatch, ObservationAck>::default();
            grpc.client_streaming(Call::new(never), path, codec).await
        }));
        ensure!(stuck.len() <= 10 * ROOM, "there is no end of room");
        match resume(xds, 1).await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    ensure!(stuck.len() >= ROOM, "{} calls: {full}", stuck.len());
    assert_eq!(full.code(), Code::ResourceExhausted, "{full}");
    assert!(full.metadata().contains_key("grpc-retry-pushback-ms"), "{full:?}");
    stuck.iter().for_each(tokio::task::JoinHandle::abort);
    let start = std::time::Instant::now();
    while let Err(status) = resume(xds, 1).await {
        ensure!(start.elapsed() < Duration::from_secs(20), "{status}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    control_plane.stop()
}

#[tokio::test]
async fn what_a_real_backend_observes_is_there() -> Result<()> {
    const USERS: u64 = 40;
    const EPOCH: u64 = 70_003;
    let folder = tempfile::tempdir()?;
    let token = folder.path().join("token");
    std::fs::write(&token, "a-token-of-this-test\n")?;
    let mut paths = Paths::find()?;
    paths.serve_flags = vec![format!("--token-file={}", token.display()).into()];
    let mut control_plane = ControlPlane::start(&paths, folder.path(), 0, 0).await?;
    let spool = folder.path().join("spool-{version}");
    let inference_flags = vec![
        format!("--observations-to=http://{}", control_plane.xds),
        format!("--observations-dir={}", spool.display()),
        "--observations-interval-ms=20".to_owned(),
        format!("--observations-token-file={}", token.display()),
    ];
    let backend = Backend::start(&Paths { inference_flags, ..paths }, folder.path(), 1, 0).await?;
    let (client, digits) = (traffic::client()?, digits::test_set()?);
    let url = format!("http://{}/v2/models/digits/infer", backend.address);
    for request in 0..4 * USERS {
        if request == 2 * USERS {
            control_plane = control_plane.crash_and_restart(Duration::ZERO).await?;
        }
        // The first is by a proxy whose clock is an hour behind: its unit is not told, and nothing else is lost.
        let late = if request == 0 { HOUR } else { 0 };
        let context = EvaluationContext {
            timestamp_ms: now_ms() - late,
            ruleset: "digits".to_owned(),
            // Other rules change meanwhile.
            revision: 7 + request,
            epoch: EPOCH,
            rule: "canary".to_owned(),
            target: "v1".to_owned(),
            arm: ["control", "treatment"][usize::from(request.is_multiple_of(2))].to_owned(),
            unit_hash: (request % USERS + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            ..EvaluationContext::default()
        };
        // Every eighth is no digit: the client's fault.
        let body = if request % 8 == 7 { r#"{"inputs": []}"# } else { &digits[0].request };
        let header = URL_SAFE_NO_PAD.encode(context.encode_to_vec());
        client.post(&url).header("x-halftone-context", header).body(body.to_owned()).send().await?;
    }
    let start = std::time::Instant::now();
    loop {
        let answer = control_plane.request(reqwest::Method::GET, RELEASE, "").await?;
        let known: Value = answer.json().await?;
        let of = |name| arm(&known, 0, name)["statistics"]["refused"]["count"].as_u64().unwrap_or_default();
        if of("control") + of("treatment") == 4 * USERS {
            assert_eq!(
                (&known["epochs"][0]["epoch"], known["epochs"].as_array().map(Vec::len)),
                (&EPOCH.into(), Some(1))
            );
            let answer = control_plane.request(reqwest::Method::GET, "/v1/observations", "").await?;
            assert_eq!(
                answer.json::<Value>().await?["omitted"],
                json!({"requests": 0, "units": 1, "batches": 0, "traced": 0})
            );
            for name in ["control", "treatment"] {
                let arm = arm(&known, 0, name);
                assert_eq!((&arm["units"], &arm["both"]), (&(USERS / 2).into(), &0.into()), "{arm}");
                assert_eq!(arm["bad"]["error"], 0);
            }
            // Those of the odd requests that were refused each time.
            let latencies = &arm(&known, 0, "control")["first_latency"];
            assert_eq!(latencies["infinite"], USERS / 8);
            let served = arm(&known, 0, "control")["statistics"]["latency"]["count"].as_u64();
            assert_eq!(served, Some(2 * USERS - USERS / 2));
            break;
        }
        ensure!(start.elapsed() < Duration::from_secs(30), "{known}\n{}", backend.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    control_plane.stop()
}
