//! Reads what may block for ever.

use super::interrupt::Interrupt;
use std::{
    io::{self, Read},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::Duration,
};

const CHUNK_BYTES: usize = 64 << 10;
const CHUNKS_AHEAD: usize = 4;
/// How soon Ctrl-C ends a read in which nothing arrives.
const PATIENCE: Duration = Duration::from_millis(100);

/// A pipe or terminal that ends when its writer closes it or the user interrupts. A thread of its own does the
/// reading: a read that waits for its writer goes on waiting after Ctrl-C.
pub(super) struct Pipe {
    chunks: Receiver<io::Result<Vec<u8>>>,
    chunk: io::Cursor<Vec<u8>>,
    interrupt: Interrupt,
}

impl Pipe {
    pub(super) fn new(bytes: impl Read + Send + 'static, interrupt: Interrupt) -> Self {
        let (sender, chunks) = sync_channel(CHUNKS_AHEAD);
        // Nobody waits for the thread: the process ends it when the report is written.
        thread::spawn(move || pump(bytes, &sender));
        Self { chunks, chunk: io::Cursor::default(), interrupt }
    }
}

fn pump(mut bytes: impl Read, sender: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let message = match bytes.read(&mut chunk) {
            Ok(0) => return,
            Ok(count) => {
                chunk.truncate(count);
                Ok(chunk)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let last = message.is_err();
        if sender.send(message).is_err() || last {
            return;
        }
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.chunk.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            match self.chunks.recv_timeout(PATIENCE) {
                Ok(chunk) => self.chunk = io::Cursor::new(chunk?),
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
                Err(RecvTimeoutError::Timeout) if self.interrupt.is_noted() => return Ok(0),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_yields_all_bytes() {
        let bytes: Vec<u8> = (0..=250).cycle().take(CHUNK_BYTES * 10 + 7).collect();
        let mut read = Vec::new();
        let mut pipe = Pipe::new(io::Cursor::new(bytes.clone()), Interrupt::default());
        pipe.read_to_end(&mut read).unwrap();
        assert!(read == bytes);
    }

    #[test]
    fn ctrl_c_ends_it_although_nothing_arrives() {
        let (reader, _writer) = io::pipe().unwrap();
        let mut pipe = Pipe::new(reader, Interrupt::noted());
        assert_eq!(pipe.read(&mut [0]).unwrap(), 0);
    }
}
