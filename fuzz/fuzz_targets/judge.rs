//! A policy, two snapshots and a state as JSON, one per line: whatever they are, a verdict in numbers, and the same bytes
//! when it is asked again.
#![no_main]

use halftone_judge::{Judge, Policy, Snapshot, State};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut lines = text.lines();
    let mut next = || lines.next().unwrap_or_default();
    let Ok(policy) = serde_json::from_str::<Policy>(next()) else { return };
    let Ok(judge) = Judge::new(policy) else { return };
    let snapshots = [next(), next()].map(serde_json::from_str::<Snapshot>);
    let mut state: State = serde_json::from_str(next()).unwrap_or_default();
    for snapshot in snapshots.into_iter().flatten() {
        let one = judge.judge(&snapshot, state.clone());
        let again = judge.judge(&snapshot, state);
        let bytes = |it| serde_json::to_string(it).expect("verdicts and states are JSON");
        assert_eq!(bytes(&one), bytes(&again));
        for test in &one.0.tests {
            let numbers = [
                test.estimate,
                test.relative,
                test.low,
                test.high,
                test.z,
                test.ln_e,
                test.highest_ln_e,
                test.p,
                Some(test.threshold),
            ];
            assert!(numbers.into_iter().flatten().all(f64::is_finite), "{test:?}");
        }
        state = one.1;
    }
});
