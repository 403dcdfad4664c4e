//! `halftone status`

mod text;

use super::{
    Format,
    client::{Client, ServerArgs, block_on, is_unreachable},
    complain, decisions, print,
};
use crate::release::{
    Event, Phase,
    view::{Summary, View},
};
use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Between two looks of `--watch`.
const EVERY: Duration = Duration::from_secs(1);
/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;
/// What `--watch` exits with when the release was not promoted.
const NOT_PROMOTED: u8 = 3;
/// Decisions that are shown of a release.
const DECISIONS: u16 = 5;
/// To the upper left corner, and everything from there on is empty.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Flags of `halftone status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// The release; a table of all when left out.
    name: Option<String>,
    /// Show it again and again; a line for each change when the output is no terminal. Ends when the release has ended or
    /// settled: with 3 when it was not promoted.
    #[arg(long)]
    watch: bool,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    server: ServerArgs,
}

/// What is known at a moment.
#[derive(Serialize)]
#[serde(untagged)]
enum Now {
    /// Of all releases.
    All(Vec<Summary>),
    /// Of one, with its last decisions, newest first.
    One {
        #[serde(flatten)]
        view: Box<View>,
        decisions: Vec<Event>,
    },
}

impl StatusArgs {
    /// Shows it.
    ///
    /// # Errors
    /// When there is no such release, or nobody answers.
    pub fn run(&self) -> Result<ExitCode> {
        let client = Client::new(&self.server)?;
        block_on(async {
            if !self.watch {
                print(self.shown(&self.look(&client).await?)?)?;
                return Ok(ExitCode::SUCCESS);
            }
            tokio::select! {
                ended = self.watch(&client) => ended,
                interrupted = tokio::signal::ctrl_c() => {
                    interrupted?;
                    Ok(ExitCode::from(INTERRUPTED))
                }
            }
        })
    }

    async fn look(&self, client: &Client) -> Result<Now> {
        let Some(name) = self.name.as_deref() else {
            return Ok(Now::All(client.get(&["v1", "releases"], &[]).await?));
        };
        let view = client.get(&["v1", "releases", name], &[]).await?;
        let records = decisions::read(client, Some(name), DECISIONS).await?;
        let decisions = records.iter().map(|record| serde_json::from_str(record.get()));
        let decisions = decisions.collect::<Result<_, _>>().context("a record is not understood")?;
        Ok(Now::One { view: Box::new(view), decisions })
    }

    fn shown(&self, now: &Now) -> Result<String> {
        Ok(match (self.format, now) {
            (Format::Json, now) => serde_json::to_string_pretty(now)? + "\n",
            (Format::Text, Now::All(all)) => text::table(all, now_ms()),
            (Format::Text, Now::One { view, decisions }) => text::one(view, decisions, now_ms()),
        })
    }

    async fn watch(&self, client: &Client) -> Result<ExitCode> {
        let redraws = io::stdout().is_terminal() && self.format == Format::Text;
        let mut told: Vec<(String, u64)> = Vec::new();
        let mut answered = true;
        loop {
            match self.look(client).await {
                Ok(now) => {
                    answered = true;
                    let all: Vec<&Summary> = match &now {
                        Now::All(all) => all.iter().collect(),
                        Now::One { view, .. } => vec![&view.summary],
                    };
                    let state: Vec<(String, u64)> =
                        all.iter().map(|of| (of.name.clone(), of.generation)).collect();
                    if redraws {
                        print(CLEAR.to_owned() + &self.shown(&now)?)?;
                    } else if self.format == Format::Json && state != told {
                        print(serde_json::to_string(&now)? + "\n")?;
                    } else {
                        let is_news = |of: &&Summary| !told.contains(&(of.name.clone(), of.generation));
                        print(all.into_iter().filter(is_news).map(text::line).collect::<String>())?;
                    }
                    told = state;
                    if let Now::One { view, .. } = &now
                        && let Some(promoted) = ended(view)
                    {
                        let code = if promoted { 0 } else { NOT_PROMOTED };
                        return Ok(ExitCode::from(code));
                    }
                }
                // It may come back, and then goes on where it was.
                Err(error) if is_unreachable(&error) && !told.is_empty() => {
                    if answered {
                        complain(&error);
                    }
                    answered = false;
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

/// Whether nothing happens any more, and if so, whether it was promoted.
fn ended(view: &View) -> Option<bool> {
    if view.waits_for.is_some() {
        return None;
    }
    match view.summary.phase {
        Phase::Promoted => Some(true),
        Phase::RolledBack | Phase::Aborted => Some(false),
        Phase::Pending | Phase::Running | Phase::Candidate | Phase::Paused => None,
    }
}

fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
