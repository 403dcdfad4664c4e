//! A child process that cannot outlive its owner.
#![allow(unsafe_code, reason = "the parent-death signal is set between fork and exec")]

use anyhow::{Context, Result, bail};
use nix::{
    sys::{
        prctl::set_pdeathsig,
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use std::{
    ffi::OsString,
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// How long a process may take to end after being asked to.
const PATIENCE: Duration = Duration::from_secs(10);

/// A command that hears its arguments alone: the flags of our programs can be given in the environment too,
/// and what the user has there is meant for other runs.
#[must_use]
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"HALFTONE_") {
            command.env_remove(name);
        }
    }
    command
}

/// The same through a launcher that becomes the program; an empty one is none.
#[must_use]
pub fn launched(launcher: &[OsString], program: &Path) -> Command {
    let Some((first, arguments)) = launcher.split_first() else { return command(program) };
    let mut command = command(Path::new(first));
    command.args(arguments).arg(program);
    command
}

/// A running process. It is ended when this is dropped, and killed by the kernel should the owner die.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; its output goes to `<name>.log` in `folder`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // A process group of its own: Ctrl-C reaches the owner alone, who then ends everything in order.
        command.process_group(0);
        // SAFETY: the closure makes one system call and touches no memory of the parent.
        unsafe {
            command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(std::io::Error::from));
        }
        let child = command.spawn().with_context(|| {
            format!("{name}: {} cannot be started", command.get_program().to_string_lossy())
        })?;
        Ok(Self { name: name.into(), child, log })
    }

    /// What the process has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The process's number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// CPU time that all of its threads have used, by the kernel's scheduler.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_time(&self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread may end meanwhile; its time is the kernel's to forget.
            let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
            nanoseconds += text.split_whitespace().next().context("no time")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Waits until `ready` answers with something.
    ///
    /// # Errors
    /// When the process ends first, or `timeout` passes; with the end of its log.
    pub async fn wait_until<T>(
        &mut self,
        timeout: Duration,
        mut ready: impl AsyncFnMut() -> Option<T>,
    ) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(value) = ready().await {
                return Ok(value);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", self.name, self.log_end());
            }
            if start.elapsed() > timeout {
                bail!("{} was not ready within {timeout:?}:\n{}", self.name, self.log_end());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for the process to end by itself.
    ///
    /// # Errors
    /// When it does not, and has to be killed.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.kill()?;
        self.child.wait()?;
        bail!("{} did not end within {PATIENCE:?}:\n{}", self.name, self.log_end());
    }

    /// Ends the process as an operator would, and waits for it.
    ///
    /// # Errors
    /// When it has to be killed, or ends with a failure.
    pub fn stop(mut self) -> Result<()> {
        if !self.end(Signal::SIGTERM)? {
            bail!("{} did not end well:\n{}", self.name, self.log_end());
        }
        Ok(())
    }

    /// Kills the process without a warning, as a crash would.
    ///
    /// # Errors
    /// When it had ended already.
    pub fn kill(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} had ended with {status}:\n{}", self.name, self.log_end());
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops the process where it is, as if it hung. Its connections stay.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    /// Sends the signal; the answer is whether the process ended successfully.
    fn end(&mut self, signal: Signal) -> Result<bool> {
        if self.child.try_wait()?.is_none() {
            self.signal(signal)?;
            // One that is paused would not hear of it.
            self.resume()?;
        }
        Ok(self.wait()?.success())
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Best effort: there is nobody to tell.
        let _ = self.end(Signal::SIGTERM);
    }
}
