//! Where the lines of the log go: something that may be read slowly, be full, or be closed.

use std::{
    io::{ErrorKind, Write},
    thread,
    time::Duration,
};

/// How long whoever reads is left alone when there is no room for more.
const PAUSE: Duration = Duration::from_millis(5);

/// Where lines go.
pub(crate) struct Output<W> {
    to: W,
    /// Whether the last line that was begun has no end.
    is_torn: bool,
}

impl<W: Write> Output<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to, is_torn: false }
    }

    /// Writes whole lines, for as long as whoever reads them takes; gives how many of them could not be written.
    pub(crate) fn put(&mut self, lines: &[u8]) -> u64 {
        // What comes behind a line without an end is none of it.
        if self.is_torn && self.write(b"\n") == 1 {
            self.is_torn = false;
        }
        let written = if self.is_torn { 0 } else { self.write(lines) };
        let (there, lost) = lines.split_at(written);
        self.is_torn |= there.last().is_some_and(|last| *last != b'\n');
        lost.iter().filter(|byte| **byte == b'\n').count() as u64
    }

    /// Writes as much as can be written: how many bytes.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.to.write(rest) {
                Ok(0) => break,
                Ok(more) => written += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Somebody has set it so that it does not wait: a slow reader is one all the same.
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
                Err(_) => break,
            }
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// Takes so many bytes, then fails until it has room again.
    #[derive(Default)]
    struct Disk {
        room: usize,
        kept: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(self.room);
            self.room -= taken;
            self.kept.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_half_of_one_stays_alone() {
        let mut output = Output::new(Disk::default());
        for (room, lines, lost, kept) in [
            (0, "a\nb\n", 2, ""),
            (9, "one\ntwo\n", 0, "one\ntwo\n"),
            (6, "three\nfour\n", 1, "one\ntwo\nthree\n"),
            (2, "five\nsix\n", 2, "one\ntwo\nthree\nfi"),
            (0, "seven\n", 1, "one\ntwo\nthree\nfi"),
            // Room for the end of the half one alone, which is then not ended again.
            (1, "eight\n", 1, "one\ntwo\nthree\nfi\n"),
            (9, "nine\n", 0, "one\ntwo\nthree\nfi\nnine\n"),
        ] {
            output.to.room = room;
            assert_eq!(output.put(lines.as_bytes()), lost, "{lines}");
            assert_eq!(String::from_utf8_lossy(&output.to.kept), kept);
        }
    }

    /// Takes a byte at every third call.
    struct Slow(Vec<u8>, usize);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += 1;
            match self.1 % 3 {
                0 => self.0.write(&bytes[..1]),
                1 => Err(ErrorKind::Interrupted.into()),
                _ => Err(ErrorKind::WouldBlock.into()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_reads_slowly_gets_everything() {
        let mut output = Output::new(Slow(Vec::new(), 0));
        assert_eq!(output.put(b"one\ntwo\n"), 0);
        assert_eq!(output.to.0, b"one\ntwo\n");
    }
}
