//! `halftone simulate` on logs of every format.

use anyhow::{Context, Result};
use flate2::{Compression, write::GzEncoder};
use halftone_rules::bucket::Seed;
use halftone_tests::{Paths, stderr, stdout};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use parquet::{
    data_type::{ByteArray, ByteArrayType, Int64Type},
    file::writer::SerializedFileWriter,
    schema::parser::parse_message_type,
};
use serde_json::{Value, json};
use std::{
    fs::File,
    io::Write,
    process::{Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const USERS: i64 = 5_000;

/// Without a name, as files are where they are edited.
fn rules(weight: &str) -> String {
    format!(
        "version: v1
match: {{path_prefixes: [/v2]}}
rules:
  - {{name: gold, condition: 'tenant.tier == \"gold\"', target: v3}}
  - {{name: canary, weight: {weight}, target: v2}}
"
    )
}

/// The fields of a request in a log. Every hundredth is for another service, every tenth is gold, and every
/// fiftieth has no user.
struct Line {
    time: i64,
    path: &'static str,
    user: Option<String>,
    tier: Option<&'static str>,
}

fn lines() -> impl Iterator<Item = Line> {
    (0..USERS).map(|index| Line {
        time: 1_782_909_000_000 + index,
        path: if index % 100 == 7 { "/other" } else { "/v2/models/digits/infer?verbose=1" },
        user: (index % 50 != 3).then(|| index.to_string()),
        tier: (index % 10 == 0).then_some("gold"),
    })
}

fn json_lines() -> String {
    let line = |line: Line| {
        let tier = line.tier.unwrap_or("-");
        let user = line.user.map_or(Value::Null, Value::from);
        format!(
            "{}\n",
            json!({ "start_time": line.time, "path": line.path, "x_user_id": user, "headers": {"X-Tenant-Tier": tier} })
        )
    };
    lines().map(line).collect()
}

fn csv() -> String {
    let line = |line: Line| {
        let (user, tier) = (line.user.unwrap_or_default(), line.tier.unwrap_or("-"));
        format!("{},{},{user},\"{tier}\"\n", line.time, line.path)
    };
    format!("time,:path,x-user-id,x_tenant_tier\n{}", lines().map(line).collect::<String>())
}

fn write_parquet(file: File) -> Result<()> {
    let schema = "message log {
        required int64 timestamp (TIMESTAMP(MILLIS,true));
        required binary path (UTF8);
        optional binary x_user_id (UTF8);
        optional binary x_tenant_tier (UTF8);
    }";
    let mut writer = SerializedFileWriter::new(file, Arc::new(parse_message_type(schema)?), Arc::default())?;
    let all: Vec<Line> = lines().collect();
    for lines in all.chunks(3_000) {
        let mut group = writer.next_row_group()?;
        let mut column = group.next_column()?.context("timestamp")?;
        let times: Vec<i64> = lines.iter().map(|line| line.time).collect();
        column.typed::<Int64Type>().write_batch(&times, None, None)?;
        column.close()?;
        for value in [
            &(|line: &Line| Some(line.path.to_owned())) as &dyn Fn(&Line) -> Option<String>,
            &|line| line.user.clone(),
            &|line| line.tier.map(Into::into),
        ] {
            let values: Vec<Option<String>> = lines.iter().map(value).collect();
            let there: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
            let bytes: Vec<ByteArray> = values.iter().flatten().map(|value| value.as_str().into()).collect();
            let mut column = group.next_column()?.context("text")?;
            column.typed::<ByteArrayType>().write_batch(&bytes, Some(&there), None)?;
            column.close()?;
        }
        group.close()?;
    }
    writer.close()?;
    Ok(())
}

struct Folder(TempDir);

impl Folder {
    /// A folder with both versions of the rules.
    fn new() -> Result<Self> {
        let folder = Self(tempfile::tempdir()?);
        folder.write("old.yaml", rules("0.1"))?;
        folder.write("digits.yaml", rules("0.2"))?;
        Ok(folder)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
        let bytes = bytes.as_ref();
        let mut file = File::create(self.0.path().join(name))?;
        if name.ends_with(".gz") {
            let mut encoder = GzEncoder::new(file, Compression::default());
            encoder.write_all(bytes)?;
            encoder.finish()?;
        } else {
            file.write_all(bytes)?;
        }
        Ok(())
    }

    fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(Paths::find()?.halftone);
        command.arg("simulate").args(args).current_dir(self.0.path());
        Ok(command)
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        Ok(self.command(args)?.output()?)
    }

    /// The report of old and new rules as JSON.
    fn report(&self, args: &[&str]) -> Result<Value> {
        let args = [&["--old", "old.yaml", "--new", "digits.yaml", "--format", "json"], args].concat();
        let output = self.run(&args)?;
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        assert!(output.stderr.is_empty(), "{args:?}: {}", stderr(&output));
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

#[test]
fn all_formats_of_a_log_give_the_same_report() -> Result<()> {
    let folder = Folder::new()?;
    folder.write("access.jsonl", json_lines())?;
    folder.write("access.log.gz", json_lines())?;
    folder.write("access.csv", csv())?;
    folder.write("access.csv.gz", csv())?;
    write_parquet(File::create(folder.0.path().join("access.parquet"))?)?;
    folder.write("rotated.1", json_lines())?;

    let report = folder.report(&["access.jsonl"])?;
    for log in ["access.log.gz", "access.csv", "access.csv.gz", "access.parquet"] {
        assert_eq!(folder.report(&[log])?, report, "{log}");
    }
    assert_eq!(folder.report(&["--input-format", "json", "rotated.1"])?, report);

    // Who is where can be told without the evaluator.
    let governed = || lines().filter(|line| line.path != "/other");
    let canary = |below: u32| {
        let taken = |line: &Line| {
            let user = line.user.as_deref().filter(|_| line.tier.is_none());
            user.is_some_and(|user| Seed::of_rule("digits", "canary").ready().bucket(user.as_bytes()) < below)
        };
        governed().filter(taken).count()
    };
    let (old, new) = (canary(100_000), canary(200_000));
    assert_eq!(report["partial"], Value::Null);
    assert_eq!(report["input"]["records"], USERS);
    assert_eq!(report["input"]["skipped"], 0);
    assert_eq!(report["input"]["without_time"], 0);
    assert_eq!(report["ungoverned"]["new"], USERS / 100);
    assert_eq!(report["without_unit"]["new"], USERS / 50);
    let units = governed().filter(|line| line.user.is_some()).count();
    assert_eq!((&report["units"]["distinct"], &report["units"]["moved"]), (&json!(units), &json!(new - old)));
    let moves = &report["units"]["moves"];
    assert_eq!(moves.as_array().map(Vec::len), Some(1), "{moves}");
    assert_eq!(moves[0]["from"], json!({ "ruleset": "digits", "target": "default" }));
    assert_eq!(moves[0]["to"], json!({ "ruleset": "digits", "target": "v2" }));
    assert_eq!(report["rules"][1]["hits"], json!({ "old": old, "new": new }));
    assert_eq!(report["never_hit"], json!([]));

    // Bundles are rules too.
    for (rules, bundle) in [("old.yaml", "old.bundle"), ("digits.yaml", "new.bundle")] {
        let halftone = Paths::find()?.halftone;
        let text = std::fs::read_to_string(folder.0.path().join(rules))?;
        folder.write("named.yaml", format!("{text}name: digits\n"))?;
        let mut compile = Command::new(halftone);
        compile.args(["compile", "named.yaml", "-o", bundle]).current_dir(folder.0.path());
        assert!(compile.output()?.status.success());
    }
    for (old, new) in
        [("old.bundle", "digits.yaml"), ("old.yaml", "new.bundle"), ("old.bundle", "new.bundle")]
    {
        let output = folder.run(&["--format", "json", "--old", old, "--new", new, "access.csv"])?;
        assert_eq!(
            serde_json::from_slice::<Value>(&output.stdout)?,
            report,
            "{old} {new}: {}",
            stderr(&output)
        );
    }
    Ok(())
}

#[test]
fn bad_lines_are_skipped_and_told() -> Result<()> {
    let folder = Folder::new()?;
    folder.write(
        "mixed.log",
        "{\"path\": \"/v2\", \"x-user-id\": 1}\nstarting\n\n{\"path\": \"/v2\", \"time\": \"noon\"}\n",
    )?;
    folder.write("cut.csv", "path,x-user-id\n/v2,1\n/v2\n")?;
    folder.write("bad.log", "one\ntwo\n")?;
    let report = folder.report(&["mixed.log", "cut.csv"])?;
    assert_eq!((&report["input"]["records"], &report["input"]["skipped"]), (&json!(2), &json!(3)));
    let places: Vec<String> = report["input"]["reasons"]
        .as_array()
        .context("reasons")?
        .iter()
        .map(|reason| format!("{}:{}", reason["file"], reason["line"]))
        .collect();
    assert_eq!(places, ["\"mixed.log\":2", "\"mixed.log\":4", "\"cut.csv\":3"]);

    let text = stdout(&folder.run(&["--new", "digits.yaml", "mixed.log"])?);
    assert!(text.starts_with("records: 1, skipped: 2\n  mixed.log:2: is no JSON object: "), "{text}");
    let never = "rules that took no request\n  digits/gold\n";
    assert!(text.contains(never), "{text}");

    let none = folder.run(&["--new", "digits.yaml", "bad.log"])?;
    assert_eq!(none.status.code(), Some(1));
    assert!(stderr(&none).contains("none of the records can be read\n  bad.log:1: "), "{}", stderr(&none));
    Ok(())
}

#[test]
fn a_log_that_breaks_off_is_reported_as_far_as_it_goes() -> Result<()> {
    let folder = Folder::new()?;
    folder.write("whole.jsonl.gz", json_lines())?;
    let bytes = std::fs::read(folder.0.path().join("whole.jsonl.gz"))?;
    // Not through `write`, which would compress it again.
    std::fs::write(folder.0.path().join("cut.jsonl.gz"), &bytes[..bytes.len() / 2])?;
    folder.write("next.csv", csv())?;
    let args = ["--new", "digits.yaml", "--format", "json", "cut.jsonl.gz", "next.csv"];
    let output = folder.run(&args)?;
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    assert!(
        report["partial"].as_str().is_some_and(|why| why.starts_with("cut.jsonl.gz:")),
        "{}",
        report["partial"]
    );
    assert!(report["input"]["records"].as_i64() > Some(USERS), "{}", report["input"]);
    Ok(())
}

#[test]
fn what_cannot_be_read_is_an_error_before_the_work() -> Result<()> {
    let folder = Folder::new()?;
    folder.write("good.log", json_lines())?;
    folder.write("broken.yaml", "version: v1\nrules: [{name: a}]\n")?;
    folder.write("not.bundle", rules("0.1"))?;
    folder.write("access.1", "{}")?;
    for (args, expected) in [
        (&["--new", "digits.yaml", "good.log", "missing.log"][..], "missing.log cannot be read"),
        (&["--new", "missing.yaml", "good.log"], "missing.yaml cannot be read"),
        (&["--new", "broken.yaml", "good.log"], "a rule needs the field `target`"),
        (&["--old", "broken.yaml", "--new", "digits.yaml", "good.log"], "broken.yaml does not compile"),
        (&["--new", "not.bundle", "good.log"], "not a bundle"),
        (&["--new", "digits.yaml", "access.1"], "--input-format"),
        (&["--new", "-", "-"], "standard input can be read only once"),
        (&["--new", "digits.yaml", "--input-format", "parquet", "good.log"], "no Parquet file"),
    ] {
        let output = folder.run(args)?;
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", stdout(&output));
        assert!(stderr(&output).contains(expected), "{args:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{args:?}: {}", stdout(&output));
    }
    Ok(())
}

#[test]
fn names_of_fields_and_rulesets_can_be_told() -> Result<()> {
    let folder = Folder::new()?;
    folder.write("odd.csv", "url,who,at\nhttps://api.example.com/v2/models?x=1,5,yesterday\n")?;
    let maps = ["--map", "path=url", "--map", "header:X-Tenant-Tier=who", "--map", "time=when"];
    let report = folder.report(&[&maps[..], &["odd.csv"]].concat())?;
    assert_eq!((&report["input"]["records"], &report["ungoverned"]["new"]), (&json!(1), &json!(0)));
    assert_eq!(report["input"]["without_time"], 1);

    // Under another name, other users are in the share.
    folder.write("users.csv", csv())?;
    let report = folder.report(&["--name", "letters", "users.csv"])?;
    assert_eq!(report["targets"][0]["ruleset"], "letters");
    folder.write("other.yaml", format!("{}name: other\n", rules("0.2")))?;
    folder.write("named.yaml", format!("{}name: named\n", rules("0.2")))?;
    let output = folder.run(&["--old", "named.yaml", "--new", "other.yaml", "users.csv"])?;
    assert!(stderr(&output).contains("nearly every unit moves"), "{}", stderr(&output));
    Ok(())
}

#[test]
fn ctrl_c_reports_what_was_read() -> Result<()> {
    let folder = Folder::new()?;
    let mut child = folder
        .command(&["--new", "digits.yaml", "--format", "json", "-"])?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // The pipe stays open, as that of a log that goes on.
    let mut stdin = child.stdin.take().context("stdin")?;
    stdin.write_all(json_lines().as_bytes())?;
    stdin.flush()?;
    // The signal must not come before the program listens to it.
    let status = format!("/proc/{}/status", child.id());
    let catches_interrupts = || -> Result<bool> {
        let text = std::fs::read_to_string(&status)?;
        let mask = text.lines().find_map(|line| line.strip_prefix("SigCgt:")).context("SigCgt")?;
        Ok(u64::from_str_radix(mask.trim(), 16)? & (1 << (Signal::SIGINT as u32 - 1)) != 0)
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while !catches_interrupts()? {
        anyhow::ensure!(Instant::now() < deadline, "it never listens to Ctrl-C");
        std::thread::sleep(Duration::from_millis(10));
    }
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGINT)?;
    let output = child.wait_with_output()?;
    drop(stdin);
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(report["partial"], "interrupted");
    Ok(())
}
