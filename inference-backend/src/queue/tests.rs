use super::*;
use std::{sync::Arc, thread, time::Duration};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(20);

/// A name, a weight, and what it fits.
#[derive(Debug, PartialEq, Eq)]
struct Thing(&'static str, usize, bool);

impl Item for Thing {
    fn is_void(&self) -> bool {
        self.2
    }

    fn weight(&self) -> usize {
        self.1
    }

    fn fits(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

fn thing(name: &'static str, weight: usize) -> Thing {
    Thing(name, weight, false)
}

fn limits(size: usize, delay: Duration) -> BatchLimits {
    BatchLimits { size, delay }
}

fn weights(taken: Taken<Thing>) -> Vec<usize> {
    match taken {
        Taken::Batch(batch) => batch.iter().map(|thing| thing.1).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn refuses_what_it_cannot_hold() {
    let queue = Queue::new(2);
    assert_eq!(queue.push(thing("a", 1)).unwrap(), 1);
    assert!(!queue.is_full());
    assert_eq!(queue.push(thing("a", 2)).unwrap(), 2);
    assert!(queue.is_full() && queue.push(thing("a", 3)).is_err());
    assert_eq!(weights(queue.take(BatchLimits::NONE, LONG)), [1]);
    queue.push(thing("a", 4)).unwrap();
    assert_eq!(weights(queue.take(BatchLimits::NONE, LONG)), [2]);
    assert_eq!(weights(queue.take(BatchLimits::NONE, LONG)), [4]);
}

#[test]
fn who_left_holds_no_place_and_is_not_given_out() {
    let queue = Queue::new(2);
    queue.push(Thing("a", 1, true)).unwrap();
    queue.push(Thing("a", 2, true)).unwrap();
    queue.push(thing("a", 3)).unwrap();
    queue.push(Thing("a", 4, true)).unwrap();
    assert_eq!(weights(queue.take(limits(9, LONG), LONG)), [3]);
    assert_eq!(queue.waiting(), 0);
}

#[test]
fn takes_together_what_fits_in_the_order_of_arrival() {
    let queue = Queue::new(16);
    for (name, weight) in [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("a", 1), ("a", 9)] {
        queue.push(thing(name, weight)).unwrap();
    }
    assert_eq!(weights(queue.take(limits(5, Duration::ZERO), LONG)), [1, 2]);
    assert_eq!(weights(queue.take(limits(5, Duration::ZERO), LONG)), [3]);
    assert_eq!(weights(queue.take(limits(5, Duration::ZERO), LONG)), [1]);
    assert_eq!(weights(queue.take(limits(5, Duration::ZERO), LONG)), [1]);
    // Larger than a batch may be: by itself.
    assert_eq!(weights(queue.take(limits(5, Duration::ZERO), LONG)), [9]);
}

#[test]
fn without_a_queue_an_idle_taker_still_gets_an_item() {
    let queue = Arc::new(Queue::new(0));
    assert!(queue.push(thing("a", 1)).is_err());
    let taker = thread::spawn({
        let queue = Arc::clone(&queue);
        move || queue.take(BatchLimits::NONE, LONG)
    });
    while queue.is_full() {
        thread::yield_now();
    }
    queue.push(thing("a", 2)).unwrap();
    assert_eq!(weights(taker.join().unwrap()), [2]);
}

#[test]
fn waits_only_while_somebody_is_known_to_come() {
    let queue = Arc::new(Queue::new(16));
    let begun = Instant::now();
    queue.push(thing("a", 1)).unwrap();
    assert_eq!(weights(queue.take(limits(9, LONG), LONG)), [1]);
    assert!(begun.elapsed() < LONG / 2, "alone it does not wait");

    queue.push(thing("a", 1)).unwrap();
    let announced = queue.announce();
    let taker = thread::spawn({
        let queue = Arc::clone(&queue);
        move || queue.take(limits(9, LONG), LONG)
    });
    thread::sleep(SHORT);
    assert!(!taker.is_finished(), "it waits for the one that was announced");
    queue.push(thing("a", 2)).unwrap();
    drop(announced);
    assert_eq!(weights(taker.join().unwrap()), [1, 2]);

    // Who was announced and does not come costs no more than the delay.
    let _never = queue.announce();
    queue.push(thing("a", 1)).unwrap();
    let begun = Instant::now();
    assert_eq!(weights(queue.take(limits(9, SHORT), LONG)), [1]);
    assert!((SHORT..LONG / 2).contains(&begun.elapsed()));
}

#[test]
fn a_full_batch_does_not_wait() {
    let queue = Queue::new(16);
    let _announced = queue.announce();
    queue.push(thing("a", 2)).unwrap();
    queue.push(thing("a", 2)).unwrap();
    assert_eq!(weights(queue.take(limits(4, LONG), LONG)), [2, 2]);
}

#[test]
fn says_when_nothing_comes_and_when_it_ends() {
    let queue = Queue::new(16);
    assert_eq!(queue.take(BatchLimits::NONE, SHORT), Taken::Idle);
    queue.push(thing("a", 1)).unwrap();
    queue.close();
    assert!(queue.push(thing("a", 1)).is_err());
    assert_eq!(weights(queue.take(BatchLimits::NONE, LONG)), [1]);
    assert_eq!(queue.take(BatchLimits::NONE, LONG), Taken::Closed);
}
