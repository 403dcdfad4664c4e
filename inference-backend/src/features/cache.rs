//! What a service answered, for as long as it is good.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// An answer, or why there is none; nothing as long as that is not known.
type Awaited<T> = Option<Result<Arc<T>, String>>;
/// Who waits for an answer has this.
pub type Flight<T> = watch::Receiver<Awaited<T>>;

/// A bounded cache, with who is waiting for what is not in it. The oldest answers go first.
#[derive(Debug)]
pub struct Cache<T> {
    ttl: Duration,
    stale: Duration,
    limits: Limits,
    entries: HashMap<Arc<str>, Entry<T>>,
    /// Keys in the order in which their answers came.
    order: BTreeMap<u64, Arc<str>>,
    next: u64,
    bytes: usize,
    flights: HashMap<Arc<str>, Flight<T>>,
}

/// What a cache may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many answers.
    pub entries: usize,
    /// How many bytes they may take.
    pub bytes: usize,
    /// How many answers may be on their way.
    pub flights: usize,
}

#[derive(Debug)]
struct Entry<T> {
    value: Arc<T>,
    bytes: usize,
    came: Instant,
    number: u64,
}

/// What a cache has of a key.
#[derive(Debug)]
pub enum Found<T> {
    /// It is good.
    Fresh(Arc<T>),
    /// It is to be used while a new one is asked for.
    Stale(Arc<T>),
    /// Nothing that may be used.
    Nothing,
}

impl<T> Cache<T> {
    /// An empty one.
    #[must_use]
    pub fn new(ttl: Duration, stale: Duration, limits: Limits) -> Self {
        let (entries, order, flights) = (HashMap::new(), BTreeMap::new(), HashMap::new());
        Self { ttl, stale, limits, entries, order, next: 0, bytes: 0, flights }
    }

    /// What there is of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Found<T> {
        let Some(entry) = self.entries.get(key) else { return Found::Nothing };
        let age = entry.came.elapsed();
        if age < self.ttl {
            Found::Fresh(Arc::clone(&entry.value))
        } else if age < self.ttl + self.stale {
            Found::Stale(Arc::clone(&entry.value))
        } else {
            Found::Nothing
        }
    }

    /// Keeps an answer that takes so many bytes besides its key.
    pub fn put(&mut self, key: Arc<str>, value: Arc<T>, bytes: usize) {
        self.remove(&key);
        let bytes = bytes.saturating_add(key.len());
        if bytes > self.limits.bytes {
            return;
        }
        while self.entries.len() >= self.limits.entries || self.bytes + bytes > self.limits.bytes {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.remove(&oldest);
        }
        self.order.insert(self.next, Arc::clone(&key));
        self.entries.insert(key, Entry { value, bytes, came: Instant::now(), number: self.next });
        self.next += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, key: &str) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.number);
            self.bytes -= entry.bytes;
        }
    }

    /// Who else waits for the key.
    #[must_use]
    pub fn flight(&self, key: &str) -> Option<Flight<T>> {
        self.flights.get(key).cloned()
    }

    /// Says that the key is being asked for; the sender is to say what became of it. None when too many are.
    pub fn take_off(&mut self, key: Arc<str>) -> Option<watch::Sender<Awaited<T>>> {
        if self.flights.len() >= self.limits.flights {
            return None;
        }
        let (sender, receiver) = watch::channel(None);
        self.flights.insert(key, receiver);
        Some(sender)
    }

    /// Says that the key is no longer being asked for.
    pub fn land(&mut self, key: &str) {
        self.flights.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn cache(ttl: Duration, stale: Duration) -> Cache<u32> {
        Cache::new(ttl, stale, Limits { entries: 3, bytes: 100, flights: 1 })
    }

    fn put(cache: &mut Cache<u32>, key: &str, value: u32, bytes: usize) {
        cache.put(key.into(), Arc::new(value), bytes);
    }

    fn fresh(cache: &Cache<u32>, key: &str) -> Option<u32> {
        match cache.get(key) {
            Found::Fresh(value) => Some(*value),
            _ => None,
        }
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_too_large_ones() {
        let mut cache = cache(HOUR, HOUR);
        for (value, key) in ["a", "b", "c"].into_iter().enumerate() {
            put(&mut cache, key, value.try_into().unwrap(), 1);
        }
        // The same key takes no second place, and is new again.
        put(&mut cache, "a", 7, 1);
        put(&mut cache, "d", 3, 1);
        assert_eq!((fresh(&cache, "a"), fresh(&cache, "b"), fresh(&cache, "c")), (Some(7), None, Some(2)));
        put(&mut cache, "large", 4, 90);
        assert_eq!(
            (fresh(&cache, "large"), fresh(&cache, "c"), fresh(&cache, "d")),
            (Some(4), None, Some(3))
        );
        put(&mut cache, "larger", 5, 1000);
        assert_eq!((fresh(&cache, "larger"), fresh(&cache, "large")), (None, Some(4)));
        // Another answer for a key that is too large to be kept: the old one is not good either.
        put(&mut cache, "large", 6, 1000);
        assert!(matches!(cache.get("large"), Found::Nothing));
        assert_eq!((cache.entries.len(), cache.order.len(), cache.bytes), (2, 2, 4));
    }

    #[test]
    fn what_is_too_old_is_stale_and_then_gone() {
        let mut stale = cache(Duration::ZERO, HOUR);
        put(&mut stale, "a", 1, 1);
        assert!(matches!(stale.get("a"), Found::Stale(_)));
        let mut gone = cache(Duration::ZERO, Duration::ZERO);
        put(&mut gone, "a", 1, 1);
        assert!(matches!(gone.get("a"), Found::Nothing));
    }

    #[test]
    fn only_so_many_are_on_their_way() {
        let mut cache = cache(HOUR, HOUR);
        let sender = cache.take_off("a".into());
        assert!(sender.is_some() && cache.flight("a").is_some());
        assert!(cache.take_off("b".into()).is_none() && cache.flight("b").is_none());
        cache.land("a");
        assert!(cache.flight("a").is_none() && cache.take_off("b".into()).is_some());
    }
}
