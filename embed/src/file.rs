//! Following a file.

use crate::{
    Engine, Watch,
    engine::{read, ruleset_name},
    watch::Feed,
};
use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::time::{MissedTickBehavior, interval};

/// How often the file is looked at. It has to look the same twice before it is read, so a change is seen after
/// at most twice this time.
const PERIOD: Duration = Duration::from_millis(100);
/// How long a file may go on changing before that counts as trouble.
const RESTLESS: Duration = Duration::from_secs(3);

impl Engine {
    /// Keeps the engine at what is in a file, a bundle or a ruleset, named as with [`Engine::load`]. Edits, renames
    /// over it and links that point elsewhere are in force within half a second.
    ///
    /// While the file is missing, is being written, or has rules that are no use, the last good ones stay in force
    /// and [`Event::Failed`](crate::Event::Failed) says why. To be safe from readers that see half of it, write
    /// another file and rename it over this one; without that, whoever pauses while writing is taken to be done. A file
    /// that is never left alone for a tenth of a second is not read.
    ///
    /// # Panics
    /// When it is called outside of a tokio runtime with a timer.
    pub fn watch_file(&self, path: impl Into<PathBuf>) -> Watch {
        let path = path.into();
        let mut feed = Feed::new(self.clone(), &path.to_string_lossy());
        Watch::spawn(async move {
            let mut look = Look { path, ..Look::default() };
            let mut period = interval(PERIOD);
            period.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                period.tick().await;
                let looked = tokio::task::spawn_blocking(move || {
                    let found = look.look();
                    (look, found)
                });
                // It neither panics nor is cancelled; if it were, there would be nothing left to watch with.
                let Ok((same, found)) = looked.await else { return };
                look = same;
                match found {
                    Found::Nothing => {}
                    Found::Content(bytes) => {
                        // What is wrong with it is told, and there is nothing else to do about it.
                        let _ = feed.take(bytes, ruleset_name(&look.path)).await;
                    }
                    Found::Trouble(error) => feed.failed(error.to_string()),
                }
            }
        })
    }
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Signature {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Of the inode, in seconds and nanoseconds: unlike the content's time, nobody can set it back.
    changed: (i64, i64),
}

impl Signature {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Looks at a file, again and again.
#[derive(Default)]
struct Look {
    path: PathBuf,
    /// As it was the last time.
    seen: Option<Signature>,
    /// As it was when it was read.
    taken: Option<Signature>,
    /// Since when it has not been the same twice.
    restless: Option<Instant>,
}

/// What a look at the file found.
enum Found {
    /// Nothing to act on.
    Nothing,
    Content(Vec<u8>),
    Trouble(io::Error),
}

impl Look {
    /// Reads the file when it has not been read in this state, and has been in it since the last time. A file that is
    /// left alone for a whole period is not read again, and the clock of the file system has moved on meanwhile, so
    /// that a later change does show.
    fn look(&mut self) -> Found {
        match self.try_look() {
            Ok(Some(bytes)) => Found::Content(bytes),
            Ok(None) => Found::Nothing,
            Err(error) => {
                *self = Self { path: std::mem::take(&mut self.path), ..Self::default() };
                Found::Trouble(error)
            }
        }
    }

    fn try_look(&mut self) -> io::Result<Option<Vec<u8>>> {
        let now = Signature::of(&self.path)?;
        if self.taken == Some(now) {
            return Ok(None);
        }
        if self.seen.replace(now) == Some(now) {
            let bytes = read(&self.path)?;
            // Somebody may have written meanwhile; then the bytes are perhaps neither the old nor the new ones.
            if Signature::of(&self.path)? == now {
                (self.taken, self.restless) = (Some(now), None);
                return Ok(Some(bytes));
            }
        }
        if self.restless.get_or_insert_with(Instant::now).elapsed() > RESTLESS {
            return Err(io::Error::other(
                "it changes all the time: write another file and rename it over this one",
            ));
        }
        Ok(None)
    }
}
