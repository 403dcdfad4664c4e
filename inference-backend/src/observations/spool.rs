//! Batches on their way to the control plane, in a folder: what was written there is sent once, whenever that is
//! possible.
//!
//! A batch is a file `NUMBER.batch`, its number being its sequence. All sources of a folder, one for each start of the
//! program, draw from the same numbers, so that their order is that of time. Batches are sent in this order, one after
//! the other, so that only the oldest can have been sent without an answer: it is never touched. When the others take too
//! much room, neighbours are merged.

mod file;

use self::file::Label;
use super::batch::Batch;
use anyhow::{Context, bail};
use halftone_proto::v1::ObservationBatch;
use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// Batches become no larger, as far as they have several series: a message is to be small enough for every receiver, as one
/// that is refused for its size would hold up all others.
const LARGEST: u64 = 2 << 20;
/// Files take room by whole blocks of so many bytes.
const BLOCK: u64 = 4096;

/// Batches in a folder.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    /// Held, so that no other process uses the folder.
    _lock: File,
    /// Bytes that they may take.
    limit: u64,
    source: [u8; 16],
    next: u64,
    entries: VecDeque<Entry>,
    lost: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    label: Label,
    /// When the first of it was observed: milliseconds since the Unix epoch; 0 when that is not known.
    begun_ms: u64,
    size: u64,
    /// Together with the next it is too large.
    alone: bool,
    /// It has no traced requests.
    untraced: bool,
    /// It has no exposures and bad events.
    stripped: bool,
}

impl Entry {
    /// Of a batch of which nothing else is known.
    fn new(label: Label) -> Self {
        Self { label, begun_ms: 0, size: 0, alone: false, untraced: false, stripped: false }
    }
}

/// What batches are brought within the limit without, before whole ones go.
#[derive(Clone, Copy)]
enum Dispensable {
    /// Nothing is judged by them.
    Traced,
    Units,
}

impl Dispensable {
    fn count(self, batch: &Batch) -> usize {
        match self {
            Self::Traced => batch.traced.len(),
            Self::Units => batch.units(),
        }
    }

    fn strip(self, batch: &mut Batch) {
        match self {
            Self::Traced => batch.strip_traced(),
            Self::Units => batch.strip(),
        }
    }

    /// Whether the entry is known to have none.
    fn is_gone(self, entry: &mut Entry) -> &mut bool {
        match self {
            Self::Traced => &mut entry.untraced,
            Self::Units => &mut entry.stripped,
        }
    }
}

/// What had to go, for want of room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// Exposures and bad events of some batches, which say how many.
    pub units: bool,
    /// Whole batches.
    pub batches: u64,
}

impl Spool {
    /// Opens the folder, which is made when it is not there, with what an earlier process left in it.
    ///
    /// # Errors
    /// When it cannot be used: no right to write there, or another process uses it.
    pub fn open(folder: &Path, limit: u64) -> anyhow::Result<Self> {
        let place = || format!("cannot keep observations in {}", folder.display());
        fs::create_dir_all(folder).with_context(place)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(folder.join("lock"));
        let lock = lock.with_context(place)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("{}: another process does; give each its own --observations-dir", place())
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(place),
        }
        let mut source = [0; 16];
        getrandom::fill(&mut source).map_err(anyhow::Error::msg).with_context(place)?;
        let mut spool = Self {
            folder: folder.to_owned(),
            _lock: lock,
            limit,
            source,
            next: 1,
            entries: VecDeque::new(),
            lost: 0,
        };
        spool.recover().with_context(place)?;
        // Better to hear now than at the first batch.
        file::write(&folder.join("probe"), &[]).with_context(place)?;
        fs::remove_file(folder.join("probe")).with_context(place)?;
        Ok(spool)
    }

    /// How many batches wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The room that they take, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.size).sum()
    }

    /// When the oldest of what waits was observed: milliseconds since the Unix epoch; 0 when nothing waits.
    #[must_use]
    pub fn begun_ms(&self) -> u64 {
        let begun = self.entries.iter().map(|entry| entry.begun_ms).filter(|&begun_ms| begun_ms > 0);
        begun.min().unwrap_or_default()
    }

    /// Batches that were lost since this was asked last: damaged, refused or gone.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Adds a batch, in several parts when it is large. When this returns, it is durable.
    ///
    /// # Errors
    /// When it cannot be written; then nothing was added.
    pub fn add(&mut self, batch: &Batch) -> io::Result<()> {
        let before = self.next;
        let added = self.add_parts(batch);
        if added.is_err() {
            while self.next > before {
                self.next -= 1;
                self.entries.pop_back();
                // What stays there is written over when the batch is added again.
                let _ = fs::remove_file(self.path(self.next));
            }
        }
        added
    }

    fn add_parts(&mut self, batch: &Batch) -> io::Result<()> {
        let label = Label { source: self.source, first: self.next, sequence: self.next };
        let bytes = file::encode(label, &batch.encode(label.source, label.sequence));
        if bytes.len() as u64 > LARGEST
            && let Some((first, second)) = batch.halves()
        {
            self.add_parts(&first)?;
            return self.add_parts(&second);
        }
        file::write(&self.path(label.sequence), &bytes)?;
        let entry = Entry { begun_ms: batch.begun_ms, size: room(bytes.len()), ..Entry::new(label) };
        self.entries.push_back(entry);
        self.next += 1;
        Ok(())
    }

    /// The oldest batch: the one to be sent next.
    ///
    /// # Errors
    /// When the file cannot be read. Files that are damaged or gone are passed over.
    pub fn oldest(&mut self) -> io::Result<Option<ObservationBatch>> {
        while !self.entries.is_empty() {
            if let Some(batch) = self.read(0)? {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// Removes what is kept elsewhere: the batches of a source up to this one.
    pub fn remove(&mut self, source: &[u8], through: u64) {
        let before = self.entries.len();
        while let Some(Entry { label, .. }) = self.entries.front()
            && label.source == source
            && label.sequence <= through
        {
            let path = self.path(label.sequence);
            self.entries.pop_front();
            // What stays there is removed after the next start: the control plane is asked first.
            if let Err(error) = fs::remove_file(&path) {
                tracing::debug!(%error, path = %path.display(), "cannot remove a batch that was sent");
            }
        }
        if self.entries.len() < before
            && let Err(error) = file::sync(&self.folder)
        {
            tracing::debug!(%error, "cannot make it durable that batches were sent");
        }
    }

    /// Takes the oldest batch out of the way, which will never be taken.
    pub fn refuse_oldest(&mut self) {
        self.set_aside(0, "refused");
    }

    /// Brings the batches within their limit: merges neighbours, the smallest first; where that is not enough, lets go the
    /// traced requests of the oldest, then their exposures and bad events, and where that is not enough either, the oldest.
    /// Never touches the very oldest.
    ///
    /// # Errors
    /// When a file cannot be read or written; what was not done yet is left for the next time.
    pub fn shrink(&mut self) -> io::Result<Gone> {
        let mut gone = Gone::default();
        while self.bytes() > self.limit && self.entries.len() > 1 {
            if self.merge_smallest()? {
                continue;
            }
            if self.strip_oldest(Dispensable::Traced)? {
                continue;
            }
            if self.strip_oldest(Dispensable::Units)? {
                gone.units = true;
                continue;
            }
            self.forget(1)?;
            gone.batches += 1;
        }
        Ok(gone)
    }

    /// Merges two neighbours. Whether something was done.
    fn merge_smallest(&mut self) -> io::Result<bool> {
        loop {
            let pairs = self.entries.iter().zip(self.entries.iter().skip(1)).enumerate().skip(1);
            let smallest =
                pairs.filter(|(_, (entry, _))| !entry.alone).min_by_key(|(_, (a, b))| a.size + b.size);
            let Some((index, (&older, &newer))) = smallest else { return Ok(false) };
            // What is found damaged makes room as well.
            let Some(mut merged) = self.decode(index)? else { return Ok(true) };
            let Some(other) = self.decode(index + 1)? else { return Ok(true) };
            let label = Label { first: older.label.first, ..newer.label };
            let fits = merged.merge(other).is_ok();
            let bytes = file::encode(label, &merged.encode(label.source, label.sequence));
            if !fits || bytes.len() as u64 > LARGEST.min(self.limit / 4) {
                self.entry(index, |entry| entry.alone = true);
                continue;
            }
            // From here on the newer file has all, and says so: the older one is not read again.
            file::write(&self.path(label.sequence), &bytes)?;
            self.entries.remove(index);
            let untraced = older.untraced && newer.untraced;
            let stripped = older.stripped && newer.stripped;
            self.entry(index, |entry| {
                let begun_ms = merged.begun_ms;
                *entry = Entry { begun_ms, size: room(bytes.len()), untraced, stripped, ..Entry::new(label) };
            });
            self.entry(index - 1, |entry| entry.alone = false);
            fs::remove_file(self.path(older.label.sequence))?;
            return Ok(true);
        }
    }

    /// Lets go what the oldest batch has of it that has some. Whether something was done.
    fn strip_oldest(&mut self, what: Dispensable) -> io::Result<bool> {
        while let Some(index) = (1..self.entries.len())
            .find(|&i| self.entries.get_mut(i).is_some_and(|entry| !*what.is_gone(entry)))
        {
            let Some(mut batch) = self.decode(index)? else { return Ok(true) };
            self.entry(index, |entry| *what.is_gone(entry) = true);
            if what.count(&batch) == 0 {
                continue;
            }
            what.strip(&mut batch);
            let Some(Entry { label, .. }) = self.entries.get(index).copied() else { return Ok(false) };
            let size = self.write(label, &batch)?;
            self.entry(index, |entry| (entry.size, entry.alone) = (size, false));
            self.entry(index - 1, |entry| entry.alone = false);
            return Ok(true);
        }
        Ok(false)
    }

    fn forget(&mut self, index: usize) -> io::Result<()> {
        if let Some(entry) = self.entries.remove(index) {
            fs::remove_file(self.path(entry.label.sequence))?;
        }
        Ok(())
    }

    /// Takes up what an earlier process left.
    fn recover(&mut self) -> io::Result<()> {
        let mut sequences = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("batch") => {
                    let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
                    sequences.extend(number);
                }
                // It was not finished.
                Some("new") => fs::remove_file(&path)?,
                _ => {}
            }
        }
        sequences.sort_unstable();
        self.next = sequences.last().map_or(1, |last| last.saturating_add(1));
        for sequence in sequences {
            let unread = Label { source: [0; 16], first: sequence, sequence };
            self.entries.push_back(Entry::new(unread));
            let last = self.entries.len() - 1;
            let bytes = fs::read(self.path(sequence))?;
            match file::decode(&bytes) {
                Ok((label, batch)) => {
                    self.entry(last, |entry| {
                        (entry.label, entry.size) = (label, room(bytes.len()));
                        entry.begun_ms = batch.begun_ms;
                    });
                }
                Err(problem) => self.damaged(last, &problem),
            }
        }
        // A merge that was cut short: the merged file has what is still there of its parts.
        let merged: Vec<Label> = self.entries.iter().map(|entry| entry.label).collect();
        let is_part = |entry: &Entry| {
            let sequence = entry.label.sequence;
            merged.iter().any(|label| label.first <= sequence && sequence < label.sequence)
        };
        while let Some(index) = self.entries.iter().position(is_part) {
            self.forget(index)?;
        }
        Ok(())
    }

    /// The batch at this place; none, and no longer at this place, when the file is damaged or gone.
    fn read(&mut self, index: usize) -> io::Result<Option<ObservationBatch>> {
        let Some(entry) = self.entries.get(index) else { return Ok(None) };
        let problem = match fs::read(self.path(entry.label.sequence)) {
            Ok(bytes) => match file::decode(&bytes) {
                Ok((_, batch)) => return Ok(Some(batch)),
                Err(problem) => problem,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => "it is gone".to_owned(),
            Err(error) => return Err(error),
        };
        self.damaged(index, &problem);
        Ok(None)
    }

    /// As [`Self::read`], to be worked with.
    fn decode(&mut self, index: usize) -> io::Result<Option<Batch>> {
        let Some(message) = self.read(index)? else { return Ok(None) };
        match Batch::decode(&message) {
            Ok(batch) => Ok(Some(batch)),
            Err(problem) => {
                self.damaged(index, &problem);
                Ok(None)
            }
        }
    }

    fn write(&self, label: Label, batch: &Batch) -> io::Result<u64> {
        let bytes = file::encode(label, &batch.encode(label.source, label.sequence));
        file::write(&self.path(label.sequence), &bytes)?;
        Ok(room(bytes.len()))
    }

    fn damaged(&mut self, index: usize, problem: &str) {
        let path = self.entries.get(index).map(|entry| self.path(entry.label.sequence)).unwrap_or_default();
        tracing::error!(path = %path.display(), problem, "observations are lost: a batch is damaged; kept as `damaged`");
        self.set_aside(index, "damaged");
    }

    /// Keeps the last one of its kind, for who wants to look at it.
    fn set_aside(&mut self, index: usize, kind: &str) {
        if let Some(entry) = self.entries.remove(index) {
            self.lost += 1;
            let path = self.path(entry.label.sequence);
            if let Err(error) = fs::rename(&path, self.folder.join(kind)) {
                tracing::debug!(%error, path = %path.display(), "cannot be set aside");
            }
        }
    }

    fn entry(&mut self, index: usize, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries.get_mut(index) {
            change(entry);
        }
    }

    fn path(&self, sequence: u64) -> PathBuf {
        self.folder.join(format!("{sequence:020}.batch"))
    }
}

fn room(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(BLOCK)
}

#[cfg(test)]
mod tests;
