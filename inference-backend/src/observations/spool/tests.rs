use super::*;
use crate::observations::batch::tests::{Event, batch};
use proptest::prelude::*;

const LIMIT: u64 = 64 << 10;

fn values(count: usize) -> Batch {
    batch(&vec![Event::Value { series: 0, unit: None, value: 1.0 }; count])
}

/// One batch with exposures of so many units.
fn exposures(units: std::ops::Range<u64>) -> Batch {
    let seen = |unit| Event::Seen { series: 0, unit, time_ms: 1, outcome: 0, latency: Some(0.5) };
    let mut events: Vec<_> = units.map(seen).collect();
    events.push(Event::Value { series: 0, unit: None, value: 1.0 });
    batch(&events)
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "lock").collect();
    names.sort();
    names
}

fn file(sequence: u64) -> String {
    format!("{sequence:020}.batch")
}

/// Requests that were counted in all that is there.
fn count(spool: &mut Spool) -> u64 {
    let mut count = 0;
    while let Some(message) = spool.oldest().unwrap() {
        let batch = Batch::decode(&message).unwrap();
        count += batch.series.values().flat_map(|s| s.statistics.values()).map(|s| s.mean.n).sum::<u64>();
        spool.remove(&message.source, message.sequence);
    }
    count
}

#[test]
fn keeps_batches_in_order_until_they_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), LIMIT).unwrap();
    for _ in 0..3 {
        spool.add(&values(1)).unwrap();
    }
    let first = spool.oldest().unwrap().unwrap();
    assert_eq!(first.sequence, 1);
    spool.remove(&[0; 16], 3);
    assert_eq!(spool.len(), 3, "those are of another source");
    spool.remove(&first.source, 2);
    assert_eq!(names(folder.path()), [file(3)]);
    drop(spool);
    // A new source, and numbers that go on.
    let mut spool = Spool::open(folder.path(), LIMIT).unwrap();
    spool.add(&values(1)).unwrap();
    let third = spool.oldest().unwrap().unwrap();
    assert_eq!((third.sequence, &third.source), (3, &first.source));
    spool.remove(&third.source, 3);
    let fourth = spool.oldest().unwrap().unwrap();
    assert_eq!(fourth.sequence, 4);
    assert_ne!(fourth.source, third.source);
}

/// A receiver that refuses a message for its size would be asked for ever.
#[test]
fn what_is_large_is_added_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), u64::MAX).unwrap();
    let seen = |unit| Event::Seen {
        series: u8::try_from(unit % 5).unwrap(),
        unit,
        time_ms: 1_700_000_000_000,
        outcome: 0,
        latency: Some(0.5),
    };
    let mut large = batch(&(0..200_000).map(seen).collect::<Vec<_>>());
    large.omitted.requests = 3;
    // The second part cannot be written: nothing was added.
    let obstacle = folder.path().join(file(2)).with_extension("new");
    fs::create_dir(&obstacle).unwrap();
    spool.add(&large).unwrap_err();
    fs::remove_dir(&obstacle).unwrap();
    assert_eq!((spool.len(), names(folder.path())), (0, vec![]));
    spool.add(&large).unwrap();
    assert!(spool.len() > 1);
    let mut all = Batch::default();
    while let Some(message) = spool.oldest().unwrap() {
        let size = fs::metadata(spool.path(message.sequence)).unwrap().len();
        assert!(size <= LARGEST, "{size}");
        all.merge(Batch::decode(&message).unwrap()).unwrap();
        spool.remove(&message.source, message.sequence);
    }
    assert!(all == large);
}

#[test]
fn is_of_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), LIMIT).unwrap();
    let error = format!("{:#}", Spool::open(folder.path(), LIMIT).unwrap_err());
    assert!(error.ends_with("another process does; give each its own --observations-dir"), "{error}");
    drop(spool);
    Spool::open(folder.path(), LIMIT).unwrap();
    let text = folder.path().join("text");
    fs::write(&text, "").unwrap();
    let error = format!("{:#}", Spool::open(&text.join("spool"), LIMIT).unwrap_err());
    assert!(
        error.starts_with("cannot keep observations in ") && error.contains("Not a directory"),
        "{error}"
    );
}

#[test]
fn a_merge_that_was_cut_short_counts_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), LIMIT).unwrap();
    // One block each: at 17 the limit is passed.
    for _ in 0..16 {
        spool.add(&values(1)).unwrap();
    }
    assert_eq!(spool.shrink().unwrap(), Gone::default());
    assert_eq!(spool.len(), 16);
    let second = fs::read(folder.path().join(file(2))).unwrap();
    spool.add(&values(1)).unwrap();
    spool.shrink().unwrap();
    // The oldest is never touched; its successors were merged.
    assert_eq!(names(folder.path())[..2], [file(1), file(3)]);
    drop(spool);
    // As if the crash had come between the writing of the merged file and the removal of its parts.
    fs::write(folder.path().join(file(2)), second).unwrap();
    fs::write(folder.path().join("00000000000000000018.new"), "begun").unwrap();
    let mut spool = Spool::open(folder.path(), LIMIT).unwrap();
    assert_eq!((spool.len(), names(folder.path()).len()), (16, 16));
    assert_eq!(count(&mut spool), 17);
    assert_eq!(spool.take_lost(), 0);
}

#[test]
fn when_it_is_full_units_go_before_counts_and_all_of_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), LIMIT).unwrap();
    let mut gone = Gone::default();
    for index in 0..100 {
        spool.add(&exposures(index * 400..(index + 1) * 400)).unwrap();
        let now = spool.shrink().unwrap();
        gone = Gone { units: gone.units | now.units, batches: gone.batches + now.batches };
        assert!(spool.bytes() <= LIMIT, "{}", spool.bytes());
    }
    assert_eq!(gone, Gone { units: true, batches: 0 });
    let (mut exposed, mut omitted, mut counted) = (0, 0, 0);
    while let Some(message) = spool.oldest().unwrap() {
        exposed += message.series.iter().map(|series| series.exposures.len()).sum::<usize>();
        omitted += message.omitted.unwrap_or_default().units;
        let batch = Batch::decode(&message).unwrap();
        counted += batch.series.values().flat_map(|s| s.statistics.values()).map(|s| s.mean.n).sum::<u64>();
        spool.remove(&message.source, message.sequence);
    }
    assert_eq!((exposed as u64 + omitted, counted), (40_000, 100));
    assert!(exposed > 1000, "{exposed}");
}

#[test]
fn series_that_no_merge_makes_smaller_go_last() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), LIMIT).unwrap();
    let mut gone = 0;
    for epoch in 0..400_u64 {
        let mut batch = values(50);
        let key = batch.series.keys().next().unwrap().clone();
        let observations = batch.series.remove(&key).unwrap();
        let ruleset = "x".repeat(500);
        batch.series.insert(halftone_proto::v1::Series { epoch, ruleset, ..key }, observations);
        spool.add(&batch).unwrap();
        gone += spool.shrink().unwrap().batches;
        assert!(spool.bytes() <= LIMIT);
    }
    assert!(gone > 0);
    assert_eq!(spool.oldest().unwrap().unwrap().sequence, 1, "it may have been sent");
}

#[test]
fn what_cannot_be_written_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), LIMIT).unwrap();
    spool.add(&values(1)).unwrap();
    // Stands where the next file would be written.
    let obstacle = folder.path().join("00000000000000000002.new");
    fs::create_dir(&obstacle).unwrap();
    assert!(spool.add(&values(2)).is_err());
    assert_eq!((spool.len(), names(folder.path())[0].as_str()), (1, file(1).as_str()));
    fs::remove_dir(&obstacle).unwrap();
    spool.add(&values(2)).unwrap();
    assert_eq!(count(&mut spool), 3);
}

#[test]
fn files_that_are_gone_or_damaged_later_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), LIMIT).unwrap();
    for _ in 0..20 {
        spool.add(&values(1)).unwrap();
    }
    fs::remove_file(folder.path().join(file(1))).unwrap();
    fs::write(folder.path().join(file(3)), "HTOBS").unwrap();
    spool.shrink().unwrap();
    assert!(spool.bytes() <= LIMIT);
    assert_eq!((count(&mut spool), spool.take_lost(), spool.take_lost()), (18, 2, 0));
    assert_eq!(names(folder.path()), ["damaged"]);
}

proptest! {
    // Each writes files to a disk.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damage_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8_u8, cut in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path(), LIMIT).unwrap();
        spool.add(&values(3)).unwrap();
        spool.add(&values(4)).unwrap();
        drop(spool);
        let path = folder.path().join(file(1));
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << bit;
        }
        fs::write(&path, &bytes).unwrap();
        let mut spool = Spool::open(folder.path(), LIMIT).unwrap();
        prop_assert_eq!(names(folder.path()), [file(2), "damaged".to_owned()]);
        prop_assert_eq!((count(&mut spool), spool.take_lost()), (4, 1));
    }
}

#[test]
fn traced_requests_go_before_what_is_judged_by() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), LIMIT).unwrap();
    let request = |span: u64| halftone_proto::v1::TracedRequest {
        trace_id: vec![1; 16],
        parent_id: span.to_be_bytes().into(),
        model: "m".repeat(100),
        ..Default::default()
    };
    // Each too large to be merged with another, as long as the requests are in it.
    for batch in 0..8_u64 {
        let traced = (0..100).map(|index| request(100 * batch + index)).collect();
        spool.add(&Batch { traced, ..exposures(100 * batch..100 * batch + 100) }).unwrap();
        let gone = spool.shrink().unwrap();
        assert_eq!(gone, Gone::default(), "{batch}");
        assert!(spool.bytes() <= LIMIT);
    }
    let mut all = Batch::default();
    while let Some(message) = spool.oldest().unwrap() {
        all.merge(Batch::decode(&message).unwrap()).unwrap();
        spool.remove(&message.source, message.sequence);
    }
    assert_eq!(all.units(), 800);
    let kept = u64::try_from(all.traced.len()).unwrap();
    assert!(kept > 0 && all.omitted.traced > 0, "{kept}");
    assert_eq!(kept + all.omitted.traced, 800);
    // The oldest batch may be on its way: it is never touched. After it, the newest stay.
    let spans: Vec<&[u8]> = all.traced.iter().map(|of| &of.parent_id[..]).collect();
    assert!(spans.contains(&&0_u64.to_be_bytes()[..]) && spans.contains(&&799_u64.to_be_bytes()[..]));
    assert!(!spans.contains(&&100_u64.to_be_bytes()[..]));
}
