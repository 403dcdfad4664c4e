//! The demo as a user meets it, up to where its own checks begin (`scripts/demo.sh --check` runs those).

use anyhow::{Context, Result};
use halftone_tests::{
    Process,
    collector::{Collector, Received},
    repository,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::BTreeSet,
    fs::File,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Output},
    time::Duration,
};
use tokio::net::TcpSocket;

const MARKER: &str = "made-by-halftone-demo";

fn demo(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_halftone-demo"));
    command.arg("--check").arg("--folder").arg(folder);
    command
}

/// What a demo says that does not start.
fn refused(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    Ok(String::from_utf8(output.stderr)?)
}

#[test]
fn a_folder_that_no_demo_made_is_left_alone_and_so_is_a_running_demos() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("thesis.txt");
    std::fs::write(&file, "years of work")?;
    let message = refused(&mut demo(folder.path()))?;
    assert!(message.contains("has files that no demo made"), "{message}");

    let lock = File::create(folder.path().join(MARKER))?;
    lock.lock()?;
    let message = refused(&mut demo(folder.path()))?;
    assert!(message.contains("another demo runs in"), "{message}");
    assert_eq!(std::fs::read_to_string(file)?, "years of work");
    Ok(())
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_before_anything_starts() -> Result<()> {
    // As Envoy takes it: others who say so may take it too.
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let listener = socket.listen(1)?;
    let taken = listener.local_addr()?.port().to_string();
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join(MARKER), "")?;
    std::fs::write(folder.path().join("envoy-1.log"), "of the last demo")?;

    for flag in PORTS {
        let message = refused(demo(folder.path()).args(with(&[flag], &taken)))?;
        let expected = format!("port {taken} is taken: name another with {flag}");
        assert!(message.contains(&expected), "{message}");
    }
    drop(listener);
    let message = refused(demo(folder.path()).args(with(&["--rest-port", "--envoy-port"], &taken)))?;
    assert!(message.contains("with --envoy-port"), "{message}");
    assert_eq!(std::fs::read_to_string(folder.path().join("envoy-1.log"))?, "of the last demo");
    Ok(())
}

const PORTS: [&str; 5] = ["--rest-port", "--xds-port", "--envoy-port", "--admin-port", "--backend-port"];

/// The port for these flags, and the system's choice for the others.
fn with(flags: &[&str], port: &str) -> [String; 5] {
    PORTS.map(|flag| format!("{flag}={}", if flags.contains(&flag) { port } else { "0" }))
}

#[test]
fn what_is_missing_is_named_with_the_variable_that_names_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut demo = demo(folder.path());
    let message = refused(demo.arg("--free-ports").env("HALFTONE_ENVOY", "/nowhere/envoy"))?;
    assert_eq!(message, "demo: /nowhere/envoy is missing: HALFTONE_ENVOY names it\n");
    Ok(())
}

/// Proxies that lead nowhere, settings of other runs and variables that are set to nothing do not matter.
#[tokio::test]
async fn a_check_that_is_cut_off_fails_and_the_environment_does_not_matter() -> Result<()> {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join(MARKER), "")?;
        std::fs::create_dir(folder.path().join("data"))?;
        std::fs::write(folder.path().join("data/halftone.db"), "no database")?;
        let mut command = demo(folder.path());
        command.arg("--free-ports");
        for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env(proxy, "http://127.0.0.1:1");
        }
        command.env_remove("no_proxy").env_remove("NO_PROXY");
        for name in ["REST", "XDS", "DATA", "FILTER", "TOKEN_FILE", "LOG", "LOG_FORMAT", "SERVE", "MODELS"] {
            command.env(format!("HALFTONE_{name}"), "nonsense");
        }
        for name in ["HALFTONE_ENVOY", "ORT_DYLIB_PATH"] {
            if std::env::var_os(name).is_none() {
                command.env(name, "");
            }
        }
        // Its log stands beside its folder: the folder is emptied.
        let logs = tempfile::tempdir()?;
        let mut process = Process::start("demo", command, logs.path())?;
        let log = logs.path().join("demo.log");
        let began = async || std::fs::read_to_string(&log).ok()?.contains("Envoy runs it").then_some(());
        process.wait_until(Duration::from_secs(60), began).await?;
        kill(Pid::from_raw(i32::try_from(process.pid())?), signal)?;
        assert_eq!(process.wait()?.code(), Some(code), "{}", process.log());
    }
    Ok(())
}

#[tokio::test]
async fn a_collector_gets_the_spans_of_the_control_plane_and_of_each_backend() -> Result<()> {
    let (folder, logs) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let collector = Collector::start(logs.path()).await?;
    let mut command = demo(folder.path());
    command.args(["--free-ports", "--otlp-endpoint", &format!("http://{}", collector.grpc)]);
    let mut process = Process::start("demo", command, logs.path())?;
    let senders = async || {
        let spans = collector.receiver.spans();
        let of = |span: &Received| [span.of_resource("service.name"), span.of_resource("model.version")];
        let senders: BTreeSet<_> = spans.iter().map(of).collect();
        (senders.len() == 3).then_some(senders)
    };
    let senders = process.wait_until(Duration::from_secs(60), senders).await?;
    let backend = |version: &str| [Some("halftone-inference".to_owned()), Some(version.to_owned())];
    // Nobody gets the third version yet.
    let expected = [[Some("halftone".to_owned()), None], backend("1"), backend("2")];
    assert_eq!(senders, expected.into());
    Ok(())
}

fn options(output: &Output) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '-');
    words.filter(|word| word.starts_with("--") && *word != "--help").map(ToOwned::to_owned).collect()
}

#[test]
fn the_script_answers_for_the_program_without_building_it() -> Result<()> {
    let script = |name: &str, argument: &str| {
        Command::new(repository().join("scripts").join(name))
            .arg(argument)
            // Whoever builds needs cargo, and finds none.
            .env("PATH", "/usr/bin:/bin")
            .output()
            .context(name.to_owned())
    };
    let program = Command::new(env!("CARGO_BIN_EXE_halftone-demo")).arg("--help").output()?;
    assert_eq!(options(&program), options(&script("demo.sh", "--help")?));
    for name in ["demo.sh", "bench.sh", "test.sh", "build.sh", "setup.sh", "train-models.sh"] {
        let help = script(name, "--help")?;
        let usage = String::from_utf8(help.stdout)?;
        assert!(help.status.success() && usage.starts_with(&format!("usage: scripts/{name}")), "{usage}");
        let bogus = script(name, "--bogus")?;
        assert_eq!(bogus.status.code(), Some(2), "{name}");
        assert!(String::from_utf8(bogus.stderr)?.contains("unknown argument '--bogus'"), "{name}");
    }
    Ok(())
}
