//! What the documents have for a fresh clone, pasted line after line. With other ports, because tests run beside each other.

use anyhow::{Context, Result, bail, ensure};
use halftone_tests::{
    Paths, Process, Prometheus, collector::Collector, command, repository, traffic::client,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    net::TcpListener,
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long something may take. Generous: the machine may be busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);
const HOST: &str = "127.0.0.1:";

/// The first block of a section that is for the shell.
fn block(document: &str, heading: &str) -> Result<String> {
    let text = std::fs::read_to_string(repository().join(document))?;
    let section = text.split_once(&format!("{heading}\n\n")).context("no such section")?.1;
    let block = section.split_once("```sh\n").context("it has no such block")?.1;
    Ok(block.split_once("```").context("it does not end")?.0.to_owned())
}

/// A free port for each one that stands in a text.
#[derive(Default)]
struct Ports(BTreeMap<String, u16>);

impl Ports {
    fn of(text: &str) -> Result<Self> {
        let number = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>();
        let written = text.split(HOST).skip(1).map(number);
        // Held until all are there, so that no two are the same.
        let free: BTreeMap<String, TcpListener> = written
            .map(|port| Ok((port, TcpListener::bind((HOST.trim_end_matches(':'), 0))?)))
            .collect::<Result<_>>()?;
        let port = |(written, free): (String, TcpListener)| Ok((written, free.local_addr()?.port()));
        Ok(Self(free.into_iter().map(port).collect::<Result<_>>()?))
    }

    /// The text with the free ones in their places.
    fn put_into(&self, text: &str) -> String {
        let put = |text: String, (written, free): (&String, &u16)| {
            text.replace(&format!("{HOST}{written}"), &format!("{HOST}#{free}"))
        };
        self.0.iter().fold(text.to_owned(), put).replace(&format!("{HOST}#"), HOST)
    }
}

/// A folder that looks like a clone in which everything is built and fetched, and what was started there.
struct Terminal {
    background: Vec<Process>,
    ports: Ports,
    folder: TempDir,
}

impl Terminal {
    /// Pastes the lines.
    async fn paste(lines: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("halftone-").tempdir()?;
        let targets = "deploy/prometheus/targets";
        let mut everything = lines.to_owned();
        for file in std::fs::read_dir(repository().join(targets))? {
            everything += &std::fs::read_to_string(file?.path())?;
        }
        let ports = Ports::of(&everything)?;
        clone(folder.path(), &ports)?;
        let mut terminal = Self { background: Vec::new(), ports, folder };
        for line in terminal.ports.put_into(lines).lines() {
            terminal.run(line).await.with_context(|| line.to_owned())?;
        }
        Ok(terminal)
    }

    fn shell(&self, line: &str) -> Command {
        let mut command = command(Path::new("bash"));
        command.arg("-c").arg(line).current_dir(self.folder.path());
        command
    }

    async fn run(&mut self, line: &str) -> Result<()> {
        if let Some(program) = line.strip_suffix(" &") {
            let name = format!("{}", self.background.len());
            let command = self.shell(&format!("exec {program}"));
            self.background.push(Process::start(&name, command, self.folder.path())?);
            return Ok(());
        }
        let start = Instant::now();
        loop {
            let output = self.shell(line).output()?;
            if output.status.success() {
                return Ok(());
            }
            // As a person would who was too fast.
            ensure!(start.elapsed() < PATIENCE, "{output:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until something is so.
    async fn wait_until(&self, mut is_so: impl AsyncFnMut(&Self) -> bool) -> Result<()> {
        let start = Instant::now();
        while !is_so(self).await {
            if start.elapsed() > PATIENCE {
                bail!("{:?}", self.background.iter().map(Process::log).collect::<Vec<_>>());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }
}

/// Has everything where a clone has it.
fn clone(folder: &Path, ports: &Ports) -> Result<()> {
    let paths = Paths::find()?;
    let prometheus = Prometheus::program()?;
    for (place, is) in [
        ("target/release/halftone", paths.halftone),
        ("target/release/halftone-inference", paths.inference),
        ("models", paths.models),
        (".halftone/envoy/envoy", paths.envoy),
        (".halftone/onnxruntime/libonnxruntime.so", paths.onnxruntime),
        (".halftone/collector/collector", Collector::program()?),
        (".halftone/prometheus/promtool", prometheus.with_file_name("promtool")),
        (".halftone/prometheus/prometheus", prometheus),
    ] {
        let place = folder.join(place);
        std::fs::create_dir_all(place.parent().context("it has one")?)?;
        symlink(is.canonicalize()?, place)?;
    }
    for part in ["", "rules", "targets"] {
        let part = Path::new("deploy/prometheus").join(part);
        std::fs::create_dir_all(folder.join(&part))?;
        for file in std::fs::read_dir(repository().join(&part))? {
            let file = file?;
            if file.file_type()?.is_file() {
                let text = ports.put_into(&std::fs::read_to_string(file.path())?);
                // Scrapes are 15 s apart there.
                let often =
                    text.replace("_interval: 15s", "_interval: 1s").replace("timeout: 10s", "timeout: 1s");
                std::fs::write(folder.join(&part).join(file.file_name()), often)?;
            }
        }
    }
    Ok(())
}

/// All of it at once, so that no port is used twice; and scraped where deploy/ says.
#[tokio::test]
async fn what_observability_md_sets_up_is_scraped() -> Result<()> {
    let terminal = Terminal::paste(&block("docs/observability.md", "## Setting it up")?).await?;
    let port = terminal.ports.0.get("9090").context("Prometheus has another port")?;
    let url = format!("http://{HOST}{port}/api/v1/query?query=up==1");
    let client = client()?;
    let all_are_up = async |_: &Terminal| {
        let Ok(answer) = client.get(&url).send().await else { return false };
        let answer: Value = answer.json().await.unwrap_or_default();
        answer["data"]["result"].as_array().is_some_and(|up| up.len() == 4)
    };
    terminal.wait_until(all_are_up).await
}

#[tokio::test]
async fn the_collector_of_tracing_md_shows_spans() -> Result<()> {
    let terminal = Terminal::paste(&block("docs/tracing.md", "# Tracing")?).await?;
    let shown = async |terminal: &Terminal| {
        let log = std::fs::read_to_string(terminal.folder.path().join(".halftone/collector.log"));
        log.is_ok_and(|log| log.contains("POST /v2/models/{model}/infer"))
    };
    terminal.wait_until(shown).await
}
