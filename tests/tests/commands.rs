//! The commands that ask a control plane, by the real program against a real one.

use anyhow::{Context, Result};
use halftone_tests::{Cli, ControlPlane, Paths, command, stderr, stdout};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::Method;
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    process::{Output, Stdio},
};
use tempfile::TempDir;

const RULESET: &str = "version: v1\ntargets:\n  v1: {endpoints: [\"127.0.0.1:8001\"]}\n  v2: {endpoints: [\"127.0.0.1:8002\"]}\ndefault: v1\nrules: []\n";
const RELEASE: &str = "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2]\n";

/// A control plane, and the program in a folder of files.
struct Bench {
    control_plane: ControlPlane,
    cli: Cli,
    _folder: TempDir,
}

impl Bench {
    async fn start(files: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let control_plane = ControlPlane::start(&Paths::find()?, folder.path(), 0, 0).await?;
        Ok(Self { control_plane, cli: Cli::new(files)?, _folder: folder })
    }

    fn server(&self) -> String {
        format!("http://{}", self.control_plane.rest)
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        self.cli.run(&[args, &["--server", &self.server()]].concat())
    }

    /// Runs it; its output when it went well.
    fn good(&self, args: &[&str]) -> Result<String> {
        let output = self.run(args)?;
        anyhow::ensure!(output.status.success(), "{args:?}: {}{}", stdout(&output), stderr(&output));
        Ok(stdout(&output))
    }

    /// Runs it; its code, and what it complained about.
    fn bad(&self, args: &[&str]) -> Result<(Option<i32>, String)> {
        let output = self.run(args)?;
        Ok((output.status.code(), stderr(&output)))
    }

    /// Waits until the controller has begun the release.
    async fn is_running(&self, name: &str) -> Result<()> {
        let path = format!("/v1/releases/{name}");
        while self.control_plane.get(&path).await?["phase"] != "running" {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_brings_rulesets_and_then_releases() -> Result<()> {
    let bench =
        Bench::start(&[("digits.yaml", RULESET), ("digits-v2.yaml", RELEASE), ("notes.txt", "no")]).await?;
    let dry = bench.good(&["apply", "-f", ".", "--dry-run"])?;
    let expected =
        "ruleset digits: would be created\nrelease digits-v2: would be created; only its form was checked\n";
    assert_eq!(dry, expected);
    assert_eq!(bench.control_plane.get("/v1/rulesets").await?, Value::Array(Vec::new()));
    let created = bench.good(&["apply", "-f", ".", "--wait", "applied"])?;
    let expected =
        "ruleset digits: created; revision 1 is applied by all 0 proxies\nrelease digits-v2: created\n";
    assert_eq!(created, expected);
    let again = bench.good(&["apply", "-f", "digits.yaml", "digits-v2.yaml"])?;
    assert_eq!(again, "ruleset digits: unchanged\nrelease digits-v2: unchanged\n");
    std::fs::write(bench.cli.path().join("digits-v2.yaml"), format!("{RELEASE}approval: auto\n"))?;
    assert_eq!(
        bench.good(&["apply", "-f", "digits-v2.yaml", "--dry-run"])?,
        "release digits-v2: would be changed\n"
    );
    assert_eq!(bench.good(&["apply", "-f", "digits-v2.yaml"])?, "release digits-v2: changed\n");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_checks_everything_before_it_changes_anything() -> Result<()> {
    let wrong = "version: v1\nruleset: digits\nstable: v1\ncandidates: [v1]\n";
    let files = [
        ("digits.yaml", RULESET),
        ("wrong.yaml", wrong),
        ("orphan.yaml", &RELEASE.replace("digits", "none")[..]),
    ];
    let bench = Bench::start(&files).await?;
    let (code, said) = bench.bad(&["apply", "-f", "."])?;
    assert_eq!(code, Some(1), "{said}");
    for part in [
        "halftone: nothing was changed\n",
        "`v1` is stable or a candidate already",
        " --> ./wrong.yaml:4:14",
        "./orphan.yaml: ",
    ] {
        assert!(said.contains(part), "{part:?} is missing in\n{said}");
    }
    assert_eq!(bench.control_plane.get("/v1/rulesets").await?, Value::Array(Vec::new()));
    let (code, said) = bench.bad(&["apply", "-f", "digits.yaml", "digits.yaml"])?;
    assert!(code == Some(1) && said.contains("there is another ruleset digits"), "{said}");
    let (code, said) = bench.bad(&["apply", "-f", "nowhere.yaml"])?;
    assert!(code == Some(1) && said.contains("nowhere.yaml cannot be read"), "{said}");
    let gone = bench.cli.run(&["apply", "-f", "digits.yaml", "--server", "http://127.0.0.1:1"])?;
    let said = stderr(&gone);
    assert!(
        gone.status.code() == Some(1) && said.contains("does not answer: start `halftone serve`"),
        "{said}"
    );
    let secure = bench.cli.run(&["status", "--server", "https://127.0.0.1:1"])?;
    assert!(stderr(&secure).contains("speaks plain HTTP"), "{}", stderr(&secure));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn people_command_releases_and_see_where_they_are() -> Result<()> {
    let bench = Bench::start(&[("digits.yaml", RULESET), ("digits-v2.yaml", RELEASE)]).await?;
    assert!(bench.good(&["status"])?.starts_with("there are no releases"));
    bench.good(&["apply", "-f", "."])?;
    bench.is_running("digits-v2").await?;
    let paused = bench.good(&["pause", "digits-v2", "--reason", "lunch"])?;
    assert_eq!(paused, "digits-v2 is paused, at step 1 of 4: lunch\n");
    let (code, said) = bench.bad(&["pause", "digits-v2"])?;
    let expected = "halftone: the release is paused and cannot take `pause`: `resume` lets it go on\n";
    assert_eq!((code, said.as_str()), (Some(1), expected));
    let (code, said) = bench.bad(&["resume", "other"])?;
    assert_eq!((code, said.as_str()), (Some(1), "halftone: there is no release \"other\"\n"));
    let table = bench.good(&["status"])?;
    assert!(table.starts_with("release    phase   step   share  since"), "{table}");
    assert!(table.contains("digits-v2  paused   1/4  1.00 %"), "{table}");
    let one = bench.good(&["status", "digits-v2"])?;
    for part in [
        "digits-v2: paused, step 1 of 4, for ",
        "v1 → v2 in ruleset digits\nwhy: lunch\nwaits for: a person: `resume`, `abort` or `rollback`\n",
        "arm      target  intended  observed  units",
        "rest     v1       98.00 %",
        "pause (running → paused) by 127.0.0.1: lunch",
    ] {
        assert!(one.contains(part), "{part:?} is missing in\n{one}");
    }
    let json: Value = serde_json::from_str(&bench.good(&["status", "digits-v2", "--format", "json"])?)?;
    assert_eq!((&json["phase"], &json["decisions"][0]["action"]), (&"paused".into(), &"pause".into()));
    let decisions = bench.good(&["decisions", "digits-v2", "--limit", "3"])?;
    let actions: Vec<&str> =
        decisions.lines().filter_map(|line| line.split("  ").nth(3)?.split(' ').next()).collect();
    assert!(actions.ends_with(&["pause"]), "{decisions}");
    let (code, said) = bench.bad(&["delete", "release/digits-v2"])?;
    assert!(code == Some(1) && said.contains("abort it, or roll it back, first"), "{said}");
    bench.good(&["abort", "digits-v2"])?;
    assert_eq!(bench.good(&["delete", "release/digits-v2"])?, "digits-v2 was deleted\n");
    assert_eq!(bench.good(&["delete", "ruleset/digits"])?, "digits was deleted\n");
    let (code, _) = bench.bad(&["delete", "digits"])?;
    assert_eq!(code, Some(2));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_read_from_its_file() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let token = folder.path().join("token");
    std::fs::write(&token, "a secret of some length\n")?;
    let mut paths = Paths::find()?;
    paths.serve_flags.extend(["--token-file".into(), token.clone().into()]);
    let control_plane = ControlPlane::start(&paths, folder.path(), 0, 0).await?;
    let server = format!("http://{}", control_plane.rest);
    let cli = Cli::new(&[("digits.yaml", RULESET)])?;
    let refused = cli.run(&["apply", "-f", "digits.yaml", "--server", &server])?;
    assert!(stderr(&refused).contains("name its file with --token-file"), "{}", stderr(&refused));
    let token = token.display().to_string();
    let taken = cli.run(&["apply", "-f", "digits.yaml", "--server", &server, "--token-file", &token])?;
    assert_eq!(stdout(&taken), "ruleset digits: created\n", "{}", stderr(&taken));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_tells_each_change_and_ends_with_the_release() -> Result<()> {
    let bench = Bench::start(&[("digits.yaml", RULESET), ("digits-v2.yaml", RELEASE)]).await?;
    bench.good(&["apply", "-f", "."])?;
    bench.is_running("digits-v2").await?;
    let watch = |name: &[&str]| {
        let mut watch = command(&Paths::find()?.halftone);
        watch.args(["status", "--watch", "--server", &bench.server()]).args(name);
        anyhow::Ok(watch.stdout(Stdio::piped()).spawn()?)
    };
    let mut one = watch(&["digits-v2"])?;
    let mut lines = BufReader::new(one.stdout.take().context("it has an output")?).lines();
    let first = lines.next().context("a line")??;
    assert!(first.contains("  digits-v2  running  step 1/4  1.00 %: "), "{first}");
    bench.good(&["rollback", "digits-v2", "--reason", "enough"])?;
    let mut last = String::new();
    for line in lines {
        last = line?;
    }
    assert!(last.contains("  digits-v2  rolled back  step 1/4  -: enough"), "{last}");
    assert_eq!(one.wait()?.code(), Some(3), "it was not promoted");

    let mut all = watch(&[])?;
    let mut lines = BufReader::new(all.stdout.take().context("it has an output")?).lines();
    lines.next().context("a line")??;
    kill(Pid::from_raw(i32::try_from(all.id())?), Signal::SIGINT)?;
    assert_eq!(all.wait()?.code(), Some(130));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_are_computed_again_from_their_records() -> Result<()> {
    let bench = Bench::start(&[("digits.yaml", RULESET), ("digits-v2.yaml", RELEASE)]).await?;
    bench.good(&["apply", "-f", "."])?;
    bench.is_running("digits-v2").await?;
    // The first verdict is noted: there are no data.
    let (judged, other) = loop {
        let page = bench.control_plane.get("/v1/releases/digits-v2/decisions").await?;
        let records = page["decisions"].as_array().context("a list")?.clone();
        let (judged, other): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|of| of.get("judged").is_some());
        if let (Some(judged), Some(other)) = (judged.into_iter().next(), other.into_iter().next()) {
            break (judged, other);
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    let id = judged["id"].as_str().context("an id")?;
    let said = bench.good(&["replay", id])?;
    assert!(said.starts_with(&format!("{id}: identical\n")), "{said}");
    let said = bench.good(&["replay", other["id"].as_str().context("an id")?])?;
    assert!(said.contains(" has no verdict: it was decided by "), "{said}");

    // Offline, from what was kept; and with a verdict that somebody changed.
    let file = bench.cli.path().join("record.json");
    std::fs::write(
        &file,
        bench.control_plane.request(Method::GET, &format!("/v1/decisions/{id}"), "").await?.text().await?,
    )?;
    let offline = bench.cli.run(&["replay", "record.json", "--server", "http://127.0.0.1:1"])?;
    assert_eq!(offline.status.code(), Some(0), "{}", stderr(&offline));
    let mut forged = judged.clone();
    forged["judged"]["verdict"]["decision"] = "PROMOTE".into();
    std::fs::write(&file, forged.to_string())?;
    let different = bench.run(&["replay", "record.json"])?;
    assert_eq!(different.status.code(), Some(3), "{}", stderr(&different));
    let said = stdout(&different);
    assert!(
        said.contains("different\ndecision: recorded \"PROMOTE\", computed \"INSUFFICIENT_DATA\"\n"),
        "{said}"
    );
    let (code, said) = bench.bad(&["replay", "1"])?;
    assert!(code == Some(1) && said.contains("neither a file nor a decision 1"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_are_printed_and_served() -> Result<()> {
    let bench = Bench::start(&[]).await?;
    for kind in ["ruleset", "release"] {
        let printed: Value = serde_json::from_str(&stdout(&bench.cli.run(&["schema", kind])?))?;
        let served = bench.control_plane.get(&format!("/v1/schemas/{kind}.json")).await?;
        assert_eq!(printed, served);
        assert!(printed["properties"]["version"].is_object(), "{printed:#}");
    }
    Ok(())
}
