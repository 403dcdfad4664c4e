//! Envoy's access log as `halftone envoy-bootstrap --access-log` has it written.

use anyhow::{Context, Result};
use halftone_tests::{
    Edge, EdgeOptions, command,
    wire::{Client, Message},
};
use serde_json::Value;

const RULES: &str = "match: {hosts: [models.test]}\ndefault: v1\nrules: [{name: even, condition: user.id % 2 == 0, target: v2}]\n";

/// One request that a rule takes, one that none takes, and one that nothing is decided on.
async fn send_three(edge: &Edge) -> Result<()> {
    let mut client = Client::Http1(edge.envoy.address, None);
    for (host, user) in [("models.test", "2"), ("models.test", "3"), ("elsewhere.test", "4")] {
        let headers: [(&str, &[u8]); 1] = [("x-user-id", user.as_bytes())];
        let message = Message { authority: host.into(), ..Message::get("/v2/models/digits?a=b", &headers) };
        client.send(&message).await?.seen()?;
    }
    Ok(())
}

#[tokio::test]
async fn json_lines_have_the_decision_and_can_be_replayed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("access.log");
    let file = log.to_str().context("a path")?;
    let edge =
        Edge::start(EdgeOptions { bootstrap: &["--access-log", file], ..EdgeOptions::default() }).await?;
    edge.publish("logged", &edge.targets(), RULES).await?;
    send_three(&edge).await?;
    let (halftone, rules) =
        (edge.paths().halftone.clone(), format!("version: v1\n{}{RULES}", edge.targets()));
    // Envoy writes what it holds back when it ends.
    drop(edge);
    let text = std::fs::read_to_string(&log)?;
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0]["halftone"], "ruleset=logged rule=even target=v2 reason=TARGETING_MATCH revision=1");
    assert_eq!(lines[1]["halftone"], "ruleset=logged target=v1 reason=DEFAULT revision=1");
    assert_eq!(lines[2]["halftone"], Value::Null);
    for (line, target) in lines.iter().zip([Some("v2"), Some("v1"), None]) {
        assert_eq!(line["halftone_target"].as_str(), target, "{line}");
        assert_eq!((&line["response_code"], &line["path"]), (&200.into(), &"/v2/models/digits?a=b".into()));
    }
    // The same rules decide the same by what is in the log.
    let old = folder.path().join("logged.yaml");
    std::fs::write(&old, &rules)?;
    let new = folder.path().join("new").join("logged.yaml");
    std::fs::create_dir_all(folder.path().join("new"))?;
    std::fs::write(&new, rules.replace("== 0", "== 1"))?;
    let output = command(&halftone)
        .arg("simulate")
        .arg("--old")
        .arg(&old)
        .arg("--new")
        .arg(&new)
        .arg(&log)
        .output()?;
    let report =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{report}");
    assert!(report.contains("v1") && report.contains("v2"), "{report}");
    Ok(())
}

#[tokio::test]
async fn text_goes_to_the_standard_output() -> Result<()> {
    let bootstrap = ["--access-log", "stdout", "--access-log-format", "text"];
    let edge = Edge::start(EdgeOptions { bootstrap: &bootstrap, ..EdgeOptions::default() }).await?;
    edge.publish("logged", &edge.targets(), RULES).await?;
    send_three(&edge).await?;
    let text = edge.stop_envoy()?;
    let line =
        |user: &str| text.lines().find(|line| line.contains("GET /v2/models/digits") && line.contains(user));
    assert!(
        line("[ruleset=logged rule=even target=v2 reason=TARGETING_MATCH revision=1]").is_some(),
        "{text}"
    );
    assert!(line("[ruleset=logged target=v1 reason=DEFAULT revision=1]").is_some(), "{text}");
    assert!(line("[-]").is_some(), "{text}");
    Ok(())
}
