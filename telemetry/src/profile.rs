//! A CPU profile of the running program, in the form that `pprof` and its like read
//! ([profile.proto](https://github.com/google/pprof/blob/main/proto/profile.proto)).

use pprof::{ProfilerGuardBuilder, Report};
use prost::Message;
use std::{
    collections::HashMap,
    sync::{
        Mutex,
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// One is recorded at a time: there is one timer for it in a process.
static RECORDING: Mutex<()> = Mutex::new(());

/// Libraries in which nobody can look further up without the risk of waiting for themselves.
const BLOCKED: [&str; 4] = ["libc", "libgcc", "pthread", "vdso"];

/// Why there is no profile.
#[derive(Debug)]
pub enum Error {
    /// Another one is being recorded.
    Busy,
    /// The system did not let us.
    Failed(String),
}

/// A CPU profile: where threads were when a sample was taken.
#[derive(Clone, PartialEq, Message)]
pub struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    r#type: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    str: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

impl Profile {
    /// Records for so long, `frequency` samples a second of CPU time.
    ///
    /// # Errors
    /// When another one is being recorded, or the system does not let us.
    pub async fn record(duration: Duration, frequency: u16) -> Result<Self, Error> {
        // Gone when nobody waits for the profile any more.
        let (_waiting, left) = mpsc::channel::<()>();
        let recording = tokio::task::spawn_blocking(move || {
            let _alone = RECORDING.try_lock().map_err(|_| Error::Busy)?;
            let failed = |error: pprof::Error| Error::Failed(error.to_string());
            let guard = ProfilerGuardBuilder::default()
                .frequency(frequency.into())
                .blocklist(&BLOCKED)
                .build()
                .map_err(failed)?;
            let begun = SystemTime::now();
            if left.recv_timeout(duration) == Err(RecvTimeoutError::Disconnected) {
                return Err(Error::Failed("nobody waits for it".into()));
            }
            let report = guard.report().build().map_err(failed)?;
            Ok(Self::of(&report, begun, duration, frequency))
        });
        recording.await.map_err(|_| Error::Failed("recording panicked".into()))?
    }

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    fn of(report: &Report, begun: SystemTime, duration: Duration, frequency: u16) -> Self {
        let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        let period = 1_000_000_000 / i64::from(frequency);
        let mut profile = Self {
            time_nanos: nanos(begun.duration_since(UNIX_EPOCH).unwrap_or_default()),
            duration_nanos: nanos(duration),
            period,
            ..Self::default()
        };
        let mut strings = Strings::default();
        // The first one must be empty.
        strings.index("");
        let thread = strings.index("thread");
        let count = ValueType { r#type: strings.index("samples"), unit: strings.index("count") };
        let cpu = ValueType { r#type: strings.index("cpu"), unit: strings.index("nanoseconds") };
        (profile.sample_type, profile.period_type) = (vec![count, cpu], Some(cpu));
        let (mut functions, mut locations) = (HashMap::new(), HashMap::new());
        for (frames, &samples) in &report.data {
            let mut location_id = Vec::with_capacity(frames.frames.len());
            for symbols in &frames.frames {
                let line: Vec<Line> = symbols
                    .iter()
                    .map(|symbol| {
                        let (name, system_name) = (symbol.name(), symbol.sys_name());
                        let key = (
                            strings.index(&name),
                            strings.index(&system_name),
                            strings.index(&symbol.filename()),
                        );
                        let next = functions.len() as u64 + 1;
                        let function_id = *functions.entry(key).or_insert(next);
                        if function_id == next {
                            let (name, system_name, filename) = key;
                            profile.function.push(Function { id: next, name, system_name, filename });
                        }
                        Line { function_id, line: symbol.lineno().into() }
                    })
                    .collect();
                let next = locations.len() as u64 + 1;
                let id = *locations.entry(line.clone()).or_insert(next);
                if id == next {
                    profile.location.push(Location { id, line });
                }
                location_id.push(id);
            }
            let samples = samples as i64;
            let label = vec![Label { key: thread, str: strings.index(&frames.thread_name) }];
            profile.sample.push(Sample { location_id, value: vec![samples, samples * period], label });
        }
        profile.string_table = strings.in_order;
        profile
    }
}

/// Texts by their index.
#[derive(Default)]
struct Strings {
    in_order: Vec<String>,
    by_text: HashMap<String, i64>,
}

impl Strings {
    fn index(&mut self, text: &str) -> i64 {
        if let Some(&index) = self.by_text.get(text) {
            return index;
        }
        let index = i64::try_from(self.in_order.len()).unwrap_or_default();
        self.in_order.push(text.to_owned());
        self.by_text.insert(text.to_owned(), index);
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[inline(never)]
    fn spin_for_the_profile(stop: &AtomicBool) -> u64 {
        let mut sum = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        sum
    }

    #[tokio::test]
    async fn finds_what_takes_the_time() {
        let stop: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
        let spinning =
            std::thread::Builder::new().name("spinner".into()).spawn(|| spin_for_the_profile(stop)).unwrap();
        let recording = Profile::record(Duration::from_secs(1), 200);
        let second = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Profile::record(Duration::from_secs(1), 200).await
        };
        let (profile, second) = tokio::join!(recording, second);
        assert!(matches!(second, Err(Error::Busy)), "{second:?}");
        let samples = |profile: &Profile| profile.sample.iter().map(|sample| sample.value[0]).sum::<i64>();
        let mut profile = profile.unwrap();
        // A machine that has no time for us gives none at first.
        for _ in 0..30 {
            if samples(&profile) >= 20 {
                break;
            }
            profile = Profile::record(Duration::from_secs(1), 200).await.unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        spinning.join().unwrap();
        // As a reader sees it.
        let profile = Profile::decode(profile.encode().as_slice()).unwrap();
        let text = |index: i64| profile.string_table[usize::try_from(index).unwrap()].as_str();
        let name = |id: u64| {
            let location = profile.location.iter().find(|location| location.id == id).unwrap();
            let function = |line: &Line| profile.function.iter().find(|f| f.id == line.function_id).unwrap();
            location.line.iter().map(|line| text(function(line).name).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(text(0), "");
        let spins = |sample: &&Sample| {
            sample.location_id.iter().flat_map(|&id| name(id)).any(|n| n.contains("spin_for_the_profile"))
        };
        let found: i64 = profile.sample.iter().filter(spins).map(|sample| sample.value[0]).sum();
        let all = samples(&profile);
        assert!(found > 0 && found * 2 > all, "{found} of {all} samples");
        let of_thread = profile.sample.iter().find(spins).unwrap();
        assert_eq!(text(of_thread.label[0].str), "spinner");
        assert_eq!(of_thread.value[1], of_thread.value[0] * 5_000_000);

        // Who leaves takes the recording along: it does not keep others from theirs.
        let long = Profile::record(Duration::from_secs(3600), 99);
        tokio::time::timeout(Duration::from_millis(50), long).await.unwrap_err();
        let begun = std::time::Instant::now();
        while let Err(error) = Profile::record(Duration::from_millis(1), 99).await {
            assert!(matches!(error, Error::Busy) && begun.elapsed() < Duration::from_secs(20), "{error:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
