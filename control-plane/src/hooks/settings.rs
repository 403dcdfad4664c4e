//! The operator's file: which webhooks and gates there are, and where.

use super::{progress::Progress, sign::Secret};
use crate::api::is_loopback;
use anyhow::{Context, Result, anyhow};
use halftone_compiler::name_problem;
use reqwest::{Client, Url, redirect::Policy};
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};
use toml::Spanned;

/// How long a webhook's endpoint may take.
const WEBHOOK: Duration = Duration::from_secs(10);
/// How long a gate may take that says nothing else.
const GATE_MS: u64 = 5_000;
/// How long after a no a gate that says nothing else is asked again.
const AGAIN_MS: u64 = 30_000;
/// Both at most.
const LONGEST_MS: u64 = 600_000;

/// Everything that is told and asked.
#[derive(Default)]
pub struct Hooks {
    pub(super) webhooks: Vec<Endpoint>,
    pub(super) gates: Vec<Gate>,
    pub(super) progress: Progress,
}

/// An address, and how to talk to it.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) name: String,
    pub(super) url: Url,
    pub(super) secret: Secret,
    pub(super) http: Client,
}

/// An endpoint that is asked.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) endpoint: Endpoint,
    /// How long after a no it is asked again.
    pub(super) again: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    webhook: Vec<WrittenWebhook>,
    #[serde(default)]
    gate: Vec<WrittenGate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenWebhook {
    name: Spanned<String>,
    url: Spanned<String>,
    secret_file: Spanned<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenGate {
    name: Spanned<String>,
    url: Spanned<String>,
    secret_file: Spanned<PathBuf>,
    timeout_ms: Option<Spanned<u64>>,
    again_ms: Option<Spanned<u64>>,
}

/// Reads the file, and the secrets that it names; they are looked for beside it.
///
/// # Errors
/// What is wrong, and in which line.
pub fn read(path: &Path) -> Result<Hooks> {
    let file = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("--hooks {file} cannot be read"))?;
    let written: Written = toml::from_str(&text).map_err(|error| {
        let place = error.span().map_or(0, |span| line(&text, &span));
        anyhow!("{file}:{place}: {}", error.message())
    })?;
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let reader = Reader { text: &text, folder };
    let mut known = BTreeSet::new();
    let hooks = written.webhook.iter().map(|of| {
        reader.unique(&mut known, &of.name)?;
        reader.endpoint(&of.name, &of.url, &of.secret_file, WEBHOOK)
    });
    let webhooks = hooks.collect::<Result<_, _>>();
    known.clear();
    let gates = written.gate.iter().map(|of| {
        reader.unique(&mut known, &of.name)?;
        let timeout = reader.milliseconds(of.timeout_ms.as_ref(), GATE_MS)?;
        let again = reader.milliseconds(of.again_ms.as_ref(), AGAIN_MS)?;
        Ok(Gate { endpoint: reader.endpoint(&of.name, &of.url, &of.secret_file, timeout)?, again })
    });
    let gates = gates.collect::<Result<_, _>>();
    let wrong = |(place, what): Wrong| anyhow!("{file}:{place}: {what}");
    Ok(Hooks {
        webhooks: webhooks.map_err(wrong)?,
        gates: gates.map_err(wrong)?,
        progress: Progress::default(),
    })
}

/// The line, and what is wrong there.
type Wrong = (usize, String);

struct Reader<'a> {
    text: &'a str,
    folder: &'a Path,
}

impl Reader<'_> {
    fn wrong<T>(&self, at: &Spanned<T>, what: impl Into<String>) -> Wrong {
        (line(self.text, &at.span()), what.into())
    }

    fn unique<'n>(&self, known: &mut BTreeSet<&'n str>, name: &'n Spanned<String>) -> Result<(), Wrong> {
        if let Some(problem) = name_problem(name.get_ref()) {
            return Err(self.wrong(name, format!("the name {:?} {problem}", name.get_ref())));
        }
        if !known.insert(name.get_ref()) {
            return Err(self.wrong(name, format!("there are two of the name {:?}", name.get_ref())));
        }
        Ok(())
    }

    fn endpoint(
        &self,
        name: &Spanned<String>,
        url: &Spanned<String>,
        secret_file: &Spanned<PathBuf>,
        timeout: Duration,
    ) -> Result<Endpoint, Wrong> {
        let parsed = Url::parse(url.get_ref()).ok().filter(|parsed| parsed.scheme() == "http");
        let parsed = parsed.filter(|parsed| parsed.host_str().is_some()).ok_or_else(|| {
            let what = format!(
                "{:?} is not http://HOST…: this program speaks plain HTTP; a relay on this machine can add TLS",
                url.get_ref()
            );
            self.wrong(url, what)
        })?;
        let path = self.folder.join(secret_file.get_ref());
        let secret = std::fs::read_to_string(&path).map_err(|error| error.to_string());
        let secret = secret.and_then(|text| Secret::new(&text)).map_err(|error| {
            self.wrong(secret_file, format!("the secret file {}: {error}", path.display()))
        })?;
        // Where it leads is the operator's to say, not the endpoint's.
        let builder = Client::builder().redirect(Policy::none()).timeout(timeout);
        let loopback = parsed.host_str().is_some_and(|host| is_loopback(host.as_bytes()));
        let builder = if loopback { builder.no_proxy() } else { builder };
        let http = builder.build().map_err(|error| self.wrong(url, error.to_string()))?;
        Ok(Endpoint { name: name.get_ref().clone(), url: parsed, secret, http })
    }

    fn milliseconds(&self, given: Option<&Spanned<u64>>, default: u64) -> Result<Duration, Wrong> {
        let Some(given) = given else { return Ok(Duration::from_millis(default)) };
        if !(1..=LONGEST_MS).contains(given.get_ref()) {
            return Err(self.wrong(given, format!("give milliseconds from 1 to {LONGEST_MS}")));
        }
        Ok(Duration::from_millis(*given.get_ref()))
    }
}

/// Counted from 1.
fn line(text: &str, span: &Range<usize>) -> usize {
    text.as_bytes().iter().take(span.start).filter(|&&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[[webhook]]\nname = \"a\"\nurl = \"http://127.0.0.1:1/\"\nsecret_file = \"secret\"\n";

    fn outcome(text: &str) -> Result<Hooks, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "a secret of some length").unwrap();
        std::fs::write(folder.path().join("short"), "short").unwrap();
        let path = folder.path().join("hooks.toml");
        std::fs::write(&path, text).unwrap();
        let shown =
            |error: anyhow::Error| format!("{error:#}").replace(&format!("{}/", folder.path().display()), "");
        read(&path).map_err(shown)
    }

    #[test]
    fn webhooks_and_gates_are_read() {
        let gate = GOOD.replace("webhook", "gate") + "timeout_ms = 100\n";
        let hooks = outcome(&format!("{GOOD}{gate}")).unwrap();
        assert_eq!((hooks.webhooks.len(), hooks.gates.len()), (1, 1));
        assert_eq!(hooks.gates[0].again, Duration::from_secs(30));
        assert!(outcome("").unwrap().webhooks.is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, wanted) in [
            (GOOD.replace("http:", "https:"), "hooks.toml:3: \"https://127.0.0.1:1/\" is not http://HOST"),
            (GOOD.replace("\"secret\"", "\"none\""), "hooks.toml:4: the secret file none: No such file"),
            (
                GOOD.replace("\"secret\"", "\"short\""),
                "hooks.toml:4: the secret file short: the secret is shorter",
            ),
            (GOOD.replace("\"a\"", "\"a b\""), "hooks.toml:2: the name \"a b\" has a character"),
            (format!("{GOOD}{GOOD}"), "hooks.toml:6: there are two of the name \"a\""),
            (format!("{GOOD}colour = 1\n"), "hooks.toml:5: unknown field `colour`"),
            (GOOD.replace("webhook", "gate") + "timeout_ms = 0\n", "hooks.toml:5: give milliseconds from 1"),
            ("[[webhook]]\nname = 1\n".to_owned(), "hooks.toml:2: invalid type"),
            ("[[webhook\n".to_owned(), "hooks.toml:1: "),
        ] {
            let said = outcome(&text).err().unwrap_or_default();
            assert!(said.starts_with(wanted), "{text}\n{said}");
        }
    }
}
