//! What the module logged.

use std::collections::VecDeque;

/// How many lines are kept; the oldest go first, so that the line before a trap is always there.
const MAX_LINES: usize = 1024;
/// How much of one line is kept.
pub(crate) const MAX_LINE_BYTES: usize = 16 << 10;

/// proxy-wasm's log levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum LogLevel {
    /// The finest level.
    Trace = 0,
    /// For developers.
    Debug = 1,
    /// Standard output arrives here too.
    Info = 2,
    /// Something to look at.
    Warn = 3,
    /// Standard error arrives here too.
    Error = 4,
    /// Where the SDK's panic hook logs.
    Critical = 5,
}

impl LogLevel {
    pub(crate) fn from_abi(level: u32) -> Option<Self> {
        [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Critical]
            .into_iter()
            .find(|known| *known as u32 == level)
    }
}

/// One line that the module logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Its level.
    pub level: LogLevel,
    /// Its text; bytes that are not UTF-8 are replaced.
    pub message: String,
}

/// The module's log lines, bounded.
#[derive(Default)]
pub(crate) struct Logs {
    lines: VecDeque<LogLine>,
}

impl Logs {
    pub(crate) fn push(&mut self, level: LogLevel, message: &[u8]) {
        let kept = message.get(..MAX_LINE_BYTES).unwrap_or(message);
        if self.lines.len() == MAX_LINES {
            self.lines.pop_front();
        }
        let message = String::from_utf8_lossy(kept).trim_end().to_owned();
        self.lines.push_back(LogLine { level, message });
    }

    pub(crate) fn last(&self) -> Option<String> {
        self.lines.back().map(|line| line.message.clone())
    }

    pub(crate) fn take(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.lines).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_lines_and_the_start_of_a_long_one() {
        let mut logs = Logs::default();
        for n in 0..2000 {
            logs.push(LogLevel::Info, n.to_string().as_bytes());
        }
        logs.push(LogLevel::Error, &vec![b'x'; MAX_LINE_BYTES * 2]);
        let lines = logs.take();
        assert_eq!(lines.len(), MAX_LINES);
        assert_eq!(lines[0].message, "977");
        assert_eq!(lines[MAX_LINES - 1].message.len(), MAX_LINE_BYTES);
        assert!(logs.take().is_empty());
    }

    #[test]
    fn knows_six_levels() {
        assert_eq!(LogLevel::from_abi(5), Some(LogLevel::Critical));
        assert_eq!(LogLevel::from_abi(6), None);
    }
}
