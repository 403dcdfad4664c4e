//! How far a long run is, on a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::{IsTerminal, stderr},
    time::Instant,
};

/// Records between two looks at the clock.
const STRIDE: u64 = 4_096;

/// A bar with the bytes done, records per second and the time that is left.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
}

impl Progress {
    /// Shows a bar when there is somebody to see it and `total`, the bytes of all logs, is known.
    pub(super) fn new(total: Option<u64>) -> Self {
        let bar = total.filter(|_| stderr().is_terminal()).map(|total| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let template = "{bar:32} {bytes}/{total_bytes}  {msg}  {eta} left";
            bar.set_style(
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        Self { bar, started: Instant::now() }
    }

    /// `position` bytes are done, and so many `records`.
    pub(super) fn show(&self, records: u64, position: impl FnOnce() -> u64) {
        let Some(bar) = self.bar.as_ref().filter(|_| records.is_multiple_of(STRIDE)) else { return };
        let milliseconds = self.started.elapsed().as_millis().max(1);
        let rate = u128::from(records) * 1_000 / milliseconds;
        bar.set_message(format!("{records} records, {rate}/s"));
        bar.set_position(position());
    }

    /// Takes the bar away, so that the report stands alone.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
