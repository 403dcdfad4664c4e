//! Ids of several workers, with clocks that go where they should not.

use super::generator::TOLERATED_MS;
use super::lease::{LEASE_MS, Leases};
use super::*;
use proptest::prelude::*;
use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// A clock that stands still, unless it is waited for.
struct Hands(AtomicU64);

impl Clock for Hands {
    fn now_ms(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn wait(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Relaxed);
    }
}

const START: u64 = EPOCH_MS + 1_000_000_000;

struct Process {
    clock: Arc<Hands>,
    leases: Leases,
}

impl Process {
    fn start(path: &Path, now_ms: u64) -> Self {
        let connection = crate::ledger::connection(path).unwrap();
        // Nothing here is about a loss of power.
        connection.pragma_update(None, "synchronous", "OFF").unwrap();
        let clock = Arc::new(Hands(AtomicU64::new(now_ms)));
        let mut leases = Leases::new(connection, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        leases.renew().unwrap();
        Self { clock, leases }
    }

    fn next(&self) -> Result<Id, IdError> {
        self.leases.ids().next()
    }

    fn step(&self, ms: i64) {
        self.clock.0.store(self.clock.now_ms().saturating_add_signed(ms), Relaxed);
    }

    fn worker(&self) -> u64 {
        self.next().unwrap().get() >> 12 & 1023
    }
}

fn file() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    (folder, path)
}

#[derive(Clone, Debug)]
enum Act {
    Make(u16),
    Renew,
    /// Without giving the number back, and with a clock that is off by so much.
    Crash(i64),
    Stop(i64),
    Step(i64),
}

fn act() -> impl Strategy<Value = Act> {
    let step = || {
        prop_oneof![-6i64..7, -70_000i64..70_000, Just(i64::try_from(LEASE_MS).unwrap()), Just(-3_600_000)]
    };
    prop_oneof![
        4 => (1u16..40).prop_map(Act::Make),
        1 => (4_090u16..8_300).prop_map(Act::Make),
        3 => Just(Act::Renew),
        1 => step().prop_map(Act::Crash),
        1 => step().prop_map(Act::Stop),
        4 => step().prop_map(Act::Step),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn ids_are_never_made_twice(acts in prop::collection::vec((0usize..3, act()), 0..60)) {
        let (_folder, path) = file();
        let mut processes: Vec<_> = (0..3).map(|_| Process::start(&path, START)).collect();
        let mut made = HashSet::new();
        for (index, act) in acts {
            match act {
                Act::Make(count) => {
                    let ids = (0..count).map_while(|_| processes[index].next().ok()).collect::<Vec<_>>();
                    prop_assert!(ids.is_sorted_by(|one, next| one < next), "in the order of time");
                    for id in ids {
                        prop_assert!(made.insert(id), "{} twice", id);
                    }
                }
                Act::Renew => processes[index].leases.renew().unwrap(),
                Act::Step(ms) => processes[index].step(ms),
                Act::Crash(ms) | Act::Stop(ms) => {
                    let now = processes[index].clock.now_ms().saturating_add_signed(ms);
                    let former = std::mem::replace(&mut processes[index], Process::start(&path, now));
                    if matches!(act, Act::Stop(_)) {
                        former.leases.give_back().unwrap();
                    }
                }
            }
        }
    }
}

#[test]
fn ids_say_when_and_are_text() {
    let id = Id::new(START, 5, 7).unwrap();
    assert_eq!((id.time_ms(), id.get() & 0xFFF, id.get() >> 12 & 1023), (START, 7, 5));
    assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{}\"", id.get()));
    let last = Id::new(EPOCH_MS + TIMES - 1, WORKERS - 1, SEQUENCES - 1).unwrap();
    assert_eq!(last.get(), (1 << 63) - 1);
    assert_eq!((Id::new(EPOCH_MS + TIMES, 0, 0), Id::new(EPOCH_MS - 1, 0, 0)), (None, None));
}

#[test]
fn ids_wait_for_the_next_millisecond_when_the_sequence_is_over() {
    let (_folder, path) = file();
    let process = Process::start(&path, START);
    let times: Vec<_> = (0..4_097).map(|_| process.next().unwrap().time_ms()).collect();
    assert_eq!((times[4_095], times[4_096]), (START, START + 1));
}

#[test]
fn ids_wait_for_a_small_step_back_and_refuse_a_large_one() {
    let (_folder, path) = file();
    let mut process = Process::start(&path, START);
    let first = process.next().unwrap();
    process.step(-5);
    assert!(process.next().unwrap() > first);
    assert_eq!((process.clock.now_ms(), process.leases.ids().times_went_back()), (START, 0));
    process.step(-6);
    assert_eq!(process.next(), Err(IdError::WentBack(6)));
    assert_eq!(process.next(), Err(IdError::WentBack(6)));
    assert_eq!(process.leases.ids().times_went_back(), 1, "once, however often it is asked");
    // Another number makes it go on: nobody has made ids with that one yet.
    assert_eq!(process.leases.ids().leased().0.unwrap().worker, 0);
    process.leases.renew().unwrap();
    assert_eq!(process.worker(), 1);
}

#[test]
fn ids_end_with_the_lease_and_the_number_goes_to_another_after_it() {
    let (_folder, path) = file();
    let process = Process::start(&path, START);
    let last = i64::try_from(LEASE_MS).unwrap() - 1;
    process.step(last);
    assert_eq!(process.worker(), 0);
    process.step(1);
    assert_eq!(process.next(), Err(IdError::NoLease));
    // The margin.
    for (later, worker) in [(0, 1), (TOLERATED_MS - 1, 2), (TOLERATED_MS, 0)] {
        assert_eq!(Process::start(&path, START + LEASE_MS + later).worker(), worker, "{later} ms later");
    }
    // The one that slept so long does not take it back.
    let mut process = process;
    process.step(10);
    process.leases.renew().unwrap();
    assert_ne!(process.worker(), 0);
}

#[test]
fn ids_notice_a_clock_that_went_back_over_a_restart() {
    let (_folder, path) = file();
    let process = Process::start(&path, START);
    process.next().unwrap();
    drop(process);
    let hour = 3_600_000;
    let process = Process::start(&path, START - hour);
    assert_eq!((process.leases.ids().times_went_back(), process.worker()), (1, 1));
    // In order, the number is free at once, and its ids stay behind.
    let process = Process::start(&path, START + hour);
    assert_eq!((process.leases.ids().times_went_back(), process.worker()), (0, 1));
    process.leases.give_back().unwrap();
    let process = Process::start(&path, START + hour + 1 + TOLERATED_MS);
    assert_eq!(
        (process.leases.ids().times_went_back(), process.leases.ids().leased().0.unwrap().worker),
        (0, 0)
    );
}

#[test]
fn ids_are_the_same_for_no_two_threads() {
    let (_folder, path) = file();
    let keeper = Keeper::start(crate::ledger::connection(&path).unwrap(), Arc::new(SystemClock)).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let ids = keeper.ids().clone();
            std::thread::spawn(move || (0..5_000).map(|_| ids.next().unwrap()).collect::<Vec<_>>())
        })
        .collect();
    let all: HashSet<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    assert_eq!(all.len(), 20_000);
    let ids = keeper.ids().clone();
    drop(keeper);
    assert_eq!(ids.next(), Err(IdError::NoLease));
}
