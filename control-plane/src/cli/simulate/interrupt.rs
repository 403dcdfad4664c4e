//! Ctrl-C: once to see what is known so far, twice to end at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};
use tokio::signal::unix::{SignalKind, signal};

/// What a shell reports for a program that Ctrl-C ended.
pub(super) const EXIT_CODE: u8 = 130;

/// Whether the user pressed Ctrl-C. Clones share the answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on, Ctrl-C no longer ends the program, but is noted here.
    pub(super) fn listen(&self) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let mut interrupts = {
            // Registering needs the runtime's reactor.
            let _guard = runtime.enter();
            signal(SignalKind::interrupt())?
        };
        let noted = self.clone();
        thread::Builder::new().name("ctrl-c".into()).spawn(move || {
            runtime.block_on(async {
                interrupts.recv().await;
                noted.note();
                interrupts.recv().await;
                std::process::exit(EXIT_CODE.into());
            });
        })?;
        Ok(())
    }

    fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_noted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
impl Interrupt {
    /// As if the user had pressed Ctrl-C.
    pub(super) fn noted() -> Self {
        let interrupt = Self::default();
        interrupt.note();
        interrupt
    }
}
