//! The commands that work on files.

use anyhow::Result;
use halftone_tests::{Cli, Paths, command, stderr, stdout};
use serde_json::Value;
use std::process::{Output, Stdio};

const RULES: &str = "version: v1
rules:
  - {name: gold, condition: 'tenant.tier == \"gold\"', target: v3}
  - {name: canary, weight: 0.1, target: v2}
";

#[test]
fn lint_tells_errors_and_warnings_by_its_exit_code() -> Result<()> {
    let surprising = "version: v1\nmatch: {hosts: [b.example]}\nrules:\n  - {name: a, condition: user.id % 2 == 0, target: v2}\n";
    let wrong = "version: v1\nrules:\n  - {name: a, condition: user.id == 'x', target: v2}\n";
    let cli = Cli::new(&[("good.yaml", RULES), ("surprising.yaml", surprising), ("wrong.yaml", wrong)])?;
    for (args, code) in [
        (&["lint", "good.yaml"][..], 0),
        (&["lint", "--deny-lints", "good.yaml"], 0),
        (&["lint", "good.yaml", "surprising.yaml"], 0),
        (&["lint", "--deny-lints", "good.yaml", "surprising.yaml"], 2),
        (&["lint", "--deny-lints", "surprising.yaml", "wrong.yaml"], 1),
        (&["lint", "missing.yaml"], 1),
    ] {
        let output = cli.run(args)?;
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}{}", stdout(&output), stderr(&output));
    }
    std::fs::write(cli.path().join("bytes.yaml"), b"version: v1\nrules: []\n\xff")?;
    std::fs::write(cli.path().join("nul.yaml"), b"version: v1\nrules: []\n\0")?;
    for (file, message) in [
        ("bytes.yaml", "bytes.yaml is not UTF-8: invalid utf-8 sequence of 1 bytes from index 22"),
        ("nul.yaml", "error[E0101]: found unprintable character\n --> nul.yaml:3:1"),
    ] {
        let output = cli.run(&["lint", file])?;
        let said = stdout(&output) + &stderr(&output);
        assert!(output.status.code() == Some(1) && said.contains(message), "{file}: {said}");
    }
    let output = cli.run(&["lint", "--format", "json", "surprising.yaml", "wrong.yaml"])?;
    let reports: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(reports[0]["diagnostics"][0]["severity"], "warning");
    let error = &reports[1]["diagnostics"][0];
    assert_eq!((&error["code"], &error["line"], &error["column"]), (&"E0305".into(), &3.into(), &26.into()));
    Ok(())
}

#[test]
fn lint_tells_what_cannot_be_published_together() -> Result<()> {
    let other = "version: v1\nname: other\nrules: []\n";
    let cli = Cli::new(&[("a.yaml", RULES), ("b.yaml", other), ("c.yaml", other)])?;
    let output = cli.run(&["lint", "a.yaml", "b.yaml", "c.yaml"])?;
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let said = stdout(&output);
    for line in [
        "error[E0212]: `a` in a.yaml governs the same requests: any host, any path",
        " --> b.yaml:1:1",
        "error[E0205]: there is a ruleset `other` already, in b.yaml",
        " --> c.yaml:2:7",
        "files: 3, errors: 3, warnings: 0",
    ] {
        assert!(said.lines().any(|other| other == line), "{line:?} is missing in\n{said}");
    }
    let output = cli.run(&["lint", "--format", "json", "a.yaml", "c.yaml"])?;
    let reports: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(reports[0]["diagnostics"], serde_json::json!([]));
    assert_eq!(reports[1]["diagnostics"][0]["code"], "E0212");
    Ok(())
}

#[test]
fn lint_takes_releases_too() -> Result<()> {
    let good = "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2]\n";
    let wrong = "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2]\nstep: []\n";
    let cli = Cli::new(&[("digits.yaml", RULES), ("good.yaml", good), ("wrong.yaml", wrong)])?;
    assert_eq!(cli.run(&["lint", "digits.yaml", "good.yaml"])?.status.code(), Some(0));
    let output = cli.run(&["lint", "wrong.yaml", "digits.yaml", "good.yaml"])?;
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("unknown field `step`") && said.contains(" --> wrong.yaml:5:1"), "{said}");
    assert!(said.ends_with("files: 3, errors: 1, warnings: 0\n"), "{said}");
    Ok(())
}

#[test]
fn a_terminal_obeys_no_name_of_a_file() -> Result<()> {
    let wrong = "version: v1\nrules: [{name: a}]";
    let (odd, shown) = ("a\u{1b}[2Jb.yaml", "a\\u{1b}[2Jb.yaml");
    let cli = Cli::new(&[(odd, wrong), ("digits.yaml", RULES), ("a\u{1b}[2Jb.log", "[1]\n{}\n")])?;
    let bundle = "\u{1b}[2J.bundle";
    for args in [
        &["lint", odd][..],
        &["lint", "gone\u{1b}[2J"],
        &["compile", odd, "-o", "out"],
        &["compile", "digits.yaml", "-o", bundle],
        &["disasm", odd],
        &["simulate", "--new", "digits.yaml", "a\u{1b}[2Jb.log"],
        &["apply", "-f", "gone\u{1b}[2J.yaml"],
        &["replay", odd],
        &["judge", "--policy", odd, odd],
        &["override", "new-key", "--out", "key\u{1b}[2J"],
        &["override", "new-key", "--out", "none\u{1b}[2J/key"],
    ] {
        let output = cli.run(args)?;
        let said = stdout(&output) + &stderr(&output);
        assert!(said.contains("\\u{1b}[2J") && !said.contains('\u{1b}'), "{args:?}: {said:?}");
    }
    assert!(stdout(&cli.run(&["lint", odd])?).contains(shown));
    // Programs get it as it is.
    let reports: Value = serde_json::from_slice(&cli.run(&["lint", "--format", "json", odd])?.stdout)?;
    assert_eq!(reports[0]["file"], odd);
    Ok(())
}

#[test]
fn compile_and_disasm_are_the_two_ways_of_a_bundle() -> Result<()> {
    let cli = Cli::new(&[("digits.yaml", RULES), ("wrong.yaml", "version: v1\nrules: [{name: a}]")])?;
    let output = cli.run(&["compile", "digits.yaml", "--revision", "9", "-o", "out.bundle"])?;
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).ends_with(" bytes, 1 ruleset, 2 rules\n"), "{}", stdout(&output));
    let listing = stdout(&cli.run(&["disasm", "out.bundle"])?);
    for line in [
        "bundle of revision 9, bucket function 1",
        "ruleset digits",
        "  rule 0 gold -> v3",
        "       0  test         a0 (tenant.tier) eq \"gold\"",
        "  rule 1 canary -> v2",
        "    buckets 0 to 99999 of 1000000 by its own seed: v2",
    ] {
        assert!(listing.lines().any(|other| other == line), "{line:?} is missing in\n{listing}");
    }
    let output = cli.run(&["compile", "digits.yaml", "wrong.yaml", "-o", "none.bundle"])?;
    assert!(!output.status.success() && stderr(&output).contains("a rule needs the field `target`"));
    assert!(!cli.path().join("none.bundle").exists(), "something was written");
    let output = cli.run(&["disasm", "digits.yaml"])?;
    assert!(stderr(&output).contains("not a bundle"), "{}", stderr(&output));
    Ok(())
}

#[test]
fn a_bundle_goes_to_standard_output_but_not_over_a_ruleset() -> Result<()> {
    let cli = Cli::new(&[("digits.yaml", RULES), ("other.yaml", RULES)])?;
    std::os::unix::fs::symlink("digits.yaml", cli.path().join("link.yaml"))?;
    assert!(cli.run(&["compile", "digits.yaml", "-o", "out.bundle"])?.status.success());
    let output = cli.run(&["compile", "digits.yaml", "-o", "-"])?;
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(output.stdout, std::fs::read(cli.path().join("out.bundle"))?);
    assert!(!cli.path().join("-").exists(), "a file is called -");

    for path in ["digits.yaml", "./digits.yaml", "link.yaml"] {
        let output = cli.run(&["compile", "digits.yaml", "-o", path])?;
        let said = stderr(&output);
        assert!(!output.status.success() && said.contains("name another file for the bundle"), "{said}");
    }
    assert_eq!(std::fs::read_to_string(cli.path().join("digits.yaml"))?, RULES);
    Ok(())
}

#[test]
fn output_that_nobody_takes_is_no_panic() -> Result<()> {
    let wrong = "version: v1\nrules: [{name: a}]";
    let cli = Cli::new(&[("digits.yaml", RULES), ("wrong.yaml", wrong)])?;
    assert!(cli.run(&["compile", "digits.yaml", "-o", "out.bundle"])?.status.success());
    let run = |args: &[&str], output: Stdio| -> Result<Output> {
        let mut halftone = command(&Paths::find()?.halftone);
        let halftone = halftone.args(args).current_dir(cli.path()).stdout(output).stderr(Stdio::piped());
        Ok(halftone.spawn()?.wait_with_output()?)
    };
    for (args, code) in [
        (&["schema"][..], 0),
        (&["lint", "digits.yaml"], 0),
        (&["lint", "wrong.yaml"], 1),
        (&["lint", "--format", "json", "digits.yaml"], 0),
        (&["compile", "digits.yaml"], 0),
        (&["compile", "digits.yaml", "-o", "-"], 0),
        (&["disasm", "out.bundle"], 0),
        (&["explain", "--ruleset", "digits.yaml"], 0),
        (&["explain", "--ruleset", "digits.yaml", "--format", "json"], 0),
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full")?;
        let output = run(args, full.into())?;
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.starts_with("halftone: standard output cannot be written: "), "{args:?}: {said}");

        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let output = run(args, writer.into())?;
        assert_eq!((output.status.code(), stderr(&output)), (Some(code), String::new()), "{args:?}");
    }
    Ok(())
}

#[test]
fn rulesets_of_one_name_are_told_by_it() -> Result<()> {
    let cli = Cli::new(&[("digits.yaml", RULES)])?;
    let output = cli.run(&["explain", "--ruleset", "digits.yaml", "--ruleset", "digits.yaml"])?;
    let expected = "halftone: there are two rulesets \"digits\": give each its own name\n";
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(1), expected));
    Ok(())
}

#[test]
fn explain_tells_what_no_rule_reads() -> Result<()> {
    let rules = "version: v1\nattributes: {user.sub: {property: [jwt, a.b]}}\nunit: user.sub\nrules:\n  - {name: a, condition: tenant.tier == 'x', target: v2}\n";
    let cli = Cli::new(&[("digits.yaml", rules), ("b.bundle", "HTNB")])?;
    for (flag, value, expected) in [
        ("--header", "x-tenant-tier=x", ""),
        ("--header", "x-tenant-teir=x", "no rule reads the header x-tenant-teir\n"),
        ("--property", "jwt.a\\.b=x", ""),
        ("--property", "jwt.a.b=x", "no rule reads the property jwt.a.b\n"),
    ] {
        let output = cli.run(&["explain", "--ruleset", "digits.yaml", flag, value])?;
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), expected), "{flag} {value}");
    }
    let output = cli.run(&["explain", "--ruleset", "b.bundle"])?;
    assert!(stderr(&output).contains("b.bundle is a bundle, and this takes rulesets"), "{}", stderr(&output));
    let help = stdout(&cli.run(&["explain", "--help"])?);
    assert!(help.contains("`\\.`") && !help.contains("`\\\\.`"), "{help}");
    Ok(())
}

#[test]
fn explain_shows_rule_by_rule_what_happened() -> Result<()> {
    let cli = Cli::new(&[("digits.yaml", RULES)])?;
    let explain = |extra: &[&str]| -> Result<Value> {
        let args = [&["explain", "--ruleset", "digits.yaml", "--format", "json"], extra].concat();
        Ok(serde_json::from_slice(&cli.run(&args)?.stdout)?)
    };
    let gold = explain(&["--header", "X-Tenant-Tier=gold", "--header", "x-user-id=42"])?;
    assert_eq!((&gold["target"], &gold["reason"]), (&"v3".into(), &"TARGETING_MATCH".into()));
    assert_eq!(gold["attributes"][0]["value"], "\"gold\"");
    let bucket = halftone_rules::bucket::Seed::of_rule("digits", "canary").ready().bucket(b"42");
    let other = explain(&["--header", "x-user-id=42"])?;
    assert_eq!(
        other["rules"][0]["why"],
        "the condition has no value: the request does not carry an attribute that the condition reads"
    );
    assert_eq!(other["rules"][1]["bucket"], bucket);
    let expected = format!(
        "there is no condition, but the unit's bucket {bucket} under its own seed is not taken: it takes buckets 0 to 99999"
    );
    assert_eq!(other["rules"][1]["why"], expected);
    assert_eq!((&other["target"], &other["reason"]), (&"default".into(), &"DEFAULT".into()));
    Ok(())
}

#[test]
fn a_bootstrap_names_a_filter_module_that_is_there() -> Result<()> {
    let cli = Cli::new(&[])?;
    let write = ["envoy-bootstrap", "--default-endpoint", "127.0.0.1:8001"];
    let missing = cli.run(&[&write[..], &["--filter", "/nowhere/filter.wasm"]].concat())?;
    let message = stderr(&missing);
    assert!(message.contains("/nowhere/filter.wasm is missing: build it with scripts/build.sh"), "{message}");
    assert!(!missing.status.success() && !cli.path().join("envoy-bootstrap").exists(), "it was written");

    // The one that was built with the program, from whatever folder; or any, when that is another machine's.
    let built = Paths::find()?.filter;
    let elsewhere = ["--filter-on-proxy", "/nowhere/filter.wasm"];
    for (args, filter) in
        [(&[][..], built.to_str().unwrap_or_default()), (&elsewhere[..], "/nowhere/filter.wasm")]
    {
        let output = cli.run(&[&write[..], args].concat())?;
        assert!(output.status.success(), "{}", stderr(&output));
        let bootstrap = std::fs::read_to_string(stdout(&output).trim())?;
        assert!(bootstrap.contains(&format!("filename: {filter:?}")), "{filter} is not in\n{bootstrap}");
    }
    Ok(())
}

#[test]
fn a_log_filter_that_filters_nothing_known_is_refused() -> Result<()> {
    let cli = Cli::new(&[("digits.yaml", RULES)])?;
    for (filter, good) in [
        ("wibble", false),
        ("info,wibble", false),
        ("info,=x=", false),
        ("=info", false),
        ("info,foo=bar", false),
        ("", true),
        ("INFO", true),
        ("warn,halftone_control_plane=debug", true),
    ] {
        let output = cli.run(&["--log", filter, "lint", "digits.yaml"])?;
        assert_eq!(output.status.code(), Some(if good { 0 } else { 2 }), "{filter}: {}", stderr(&output));
    }
    let message = stderr(&cli.run(&["--log", "info,wibble", "lint", "digits.yaml"])?);
    assert!(
        message.contains("`wibble` is neither a level (off, error, warn, info, debug, trace) nor"),
        "{message}"
    );
    Ok(())
}

#[test]
fn a_collector_that_cannot_be_meant_is_refused_before_anything_is_done() -> Result<()> {
    let cli = Cli::new(&[])?;
    let refused = |serve: &mut std::process::Command| -> Result<String> {
        // Nothing is made of a folder that is not to be used.
        let data = cli.path().join("data");
        let output = serve.arg("--data").arg(&data).current_dir(cli.path()).output()?;
        let said = stderr(&output);
        assert!(!output.status.success() && !data.exists(), "{said}");
        Ok(said)
    };
    let serve = || -> Result<std::process::Command> {
        let mut serve = command(&Paths::find()?.halftone);
        serve.arg("serve");
        Ok(serve)
    };
    let hint = "'--otlp-endpoint <URL>': http:// is missing; give http://localhost:4317";
    let by_flag = refused(serve()?.args(["--otlp-endpoint", "localhost:4317"]))?;
    assert!(by_flag.contains(hint), "{by_flag}");
    let by_environment = refused(serve()?.env("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317"))?;
    assert!(by_environment.contains(hint), "{by_environment}");
    let protocol = refused(serve()?.args(["--otlp-protocol", "http"]))?;
    assert!(protocol.contains("it is neither grpc nor http/protobuf"), "{protocol}");
    let with_path = refused(serve()?.args(["--otlp-endpoint", "http://localhost:4317/v1/traces"]))?;
    assert!(with_path.contains("something behind the port"), "{with_path}");
    let headers = refused(
        serve()?
            .args(["--otlp-endpoint", "http://localhost:4317"])
            .env("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
    )?;
    assert!(headers.contains("header 1 is not of the form name=value"), "{headers}");
    Ok(())
}

/// What both programs have is said of each as it is.
#[test]
fn help_tells_what_the_control_plane_records() -> Result<()> {
    let output = Cli::new(&[])?.run(&["serve", "--help"])?;
    let help = stdout(&output).split_whitespace().collect::<Vec<_>>().join(" ");
    let of = |flag: &str| {
        help.split_once(flag).and_then(|(_, text)| text.split_once("[env")).unwrap_or_default().0
    };
    let (limit, sample) = (of("--trace-limit <"), of("--trace-sample <"));
    assert!(limit.contains("requests that change something") && !limit.contains("filter"), "{limit}");
    assert!(sample.contains("begin in the control plane"), "{sample}");
    Ok(())
}
