use super::*;
use proptest::prelude::*;
use std::num::NonZeroU32;

/// What a breaker does, remembered in full and worked out anew each time.
struct Model {
    phase: Expected,
    number: u64,
}

enum Expected {
    /// What was counted: in which slice, and whether it failed.
    Closed(Vec<(u128, bool)>),
    Open(Duration),
    /// How many probes are on their way, and how many have succeeded.
    HalfOpen(u32, u32),
}

impl Model {
    fn turn(&mut self, phase: Expected) {
        self.phase = phase;
        self.number += 1;
    }

    fn enter(&mut self, policy: &Policy, now: Duration) -> bool {
        if matches!(self.phase, Expected::Open(until) if until <= now) {
            self.turn(Expected::HalfOpen(0, 0));
        }
        match &mut self.phase {
            Expected::Closed(_) => true,
            Expected::Open(_) => false,
            Expected::HalfOpen(under_way, succeeded) => {
                let may = *under_way + *succeeded < policy.probes.get();
                *under_way += u32::from(may);
                may
            }
        }
    }

    fn leave(&mut self, policy: &Policy, now: Duration, failed: Option<bool>) {
        let opens = match (&mut self.phase, failed) {
            (Expected::Closed(counted), Some(failed)) => {
                let this = slice(policy, now);
                counted.push((this, failed));
                let in_a_row = counted.iter().rev().take_while(|(_, failed)| *failed).count();
                let lately: Vec<bool> = counted
                    .iter()
                    .filter(|(slice, _)| *slice + u128::from(SLICES) > this)
                    .map(|(_, failed)| *failed)
                    .collect();
                let failures = lately.iter().filter(|failed| **failed).count();
                let is_bad = lately.len() >= policy.minimum.get() as usize
                    && failures * 100 >= lately.len() * usize::from(policy.failure_percent);
                failed && (in_a_row >= policy.consecutive.get() as usize || is_bad)
            }
            (Expected::HalfOpen(under_way, succeeded), failed) => {
                *under_way -= 1;
                *succeeded += u32::from(failed == Some(false));
                if *succeeded == policy.probes.get() {
                    self.turn(Expected::Closed(Vec::new()));
                    return;
                }
                failed == Some(true)
            }
            _ => false,
        };
        if opens {
            self.turn(Expected::Open(now + policy.open));
        }
    }

    fn state(&self) -> State {
        match self.phase {
            Expected::Closed(_) => State::Closed,
            Expected::Open(_) => State::Open,
            Expected::HalfOpen(..) => State::HalfOpen,
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Enter,
    /// One of those that are under way leaves.
    Leave(prop::sample::Index, Option<bool>),
    /// Milliseconds pass.
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let outcome = prop_oneof![3 => Just(Some(true)), 3 => Just(Some(false)), 1 => Just(None)];
    let step = prop_oneof![
        4 => Just(Step::Enter),
        4 => (any::<prop::sample::Index>(), outcome).prop_map(|(which, failed)| Step::Leave(which, failed)),
        1 => (0_u64..400).prop_map(Step::Wait),
        1 => (0_u64..20).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..300)
}

prop_compose! {
    fn policies()(
        consecutive in 1_u32..6,
        failure_percent in 1_u8..=100,
        minimum in 1_u32..12,
        window in 1_u64..300,
        open in 0_u64..300,
        probes in 1_u32..4,
    ) -> Policy {
        let number = |n| NonZeroU32::new(n).unwrap();
        Policy {
            consecutive: number(consecutive),
            failure_percent,
            minimum: number(minimum),
            window: Duration::from_millis(window),
            open: Duration::from_millis(open),
            probes: number(probes),
            ..Policy::default()
        }
    }
}

proptest! {
    #[test]
    fn does_what_the_model_does(policy in policies(), steps in steps()) {
        let (mut machine, mut now) = (Machine::new(), Duration::ZERO);
        let mut model = Model { phase: Expected::Closed(Vec::new()), number: 0 };
        let mut under_way: Vec<u64> = Vec::new();
        for step in steps {
            match step {
                Step::Enter => {
                    let entered = machine.enter(&policy, now);
                    prop_assert_eq!(entered.is_ok(), model.enter(&policy, now));
                    match (entered, &model.phase) {
                        (Ok(number), _) => under_way.push(number),
                        (Err(left), Expected::Open(until)) => prop_assert_eq!(left, *until - now),
                        (Err(left), _) => prop_assert_eq!(left, Duration::ZERO),
                    }
                }
                Step::Leave(which, failed) => {
                    if under_way.is_empty() {
                        continue;
                    }
                    let number = under_way.swap_remove(which.index(under_way.len()));
                    machine.leave(&policy, now, number, failed);
                    // Who was let in during an earlier phase has no say.
                    if number == model.number {
                        model.leave(&policy, now, failed);
                    }
                }
                Step::Wait(time) => now += Duration::from_millis(time),
            }
            prop_assert_eq!(machine.state(), model.state());
        }
    }
}
