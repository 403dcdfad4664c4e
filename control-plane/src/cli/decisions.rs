//! `halftone decisions`

use super::{
    Format,
    client::{Client, ServerArgs, block_on},
    moment, print,
};
use crate::release::Event;
use anyhow::Result;
use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Flags of `halftone decisions`.
#[derive(Args, Debug)]
pub struct DecisionsArgs {
    /// The release; all when left out.
    name: Option<String>,
    /// At most this many, the newest ones.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=500), value_name = "N")]
    limit: u16,
    /// Form of the output; as JSON, one whole record per line, as `halftone replay` takes it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    server: ServerArgs,
}

/// A part of the records.
#[derive(Deserialize)]
struct Page {
    decisions: Vec<Box<RawValue>>,
}

impl DecisionsArgs {
    /// Prints them, the oldest first.
    ///
    /// # Errors
    /// When there is no such release, or nobody answers.
    pub fn run(&self) -> Result<()> {
        let client = Client::new(&self.server)?;
        let records = block_on(read(&client, self.name.as_deref(), self.limit))?;
        let lines = records.iter().rev().map(|record| match self.format {
            Format::Json => Ok(format!("{}\n", record.get())),
            Format::Text => Ok(line(&serde_json::from_str(record.get())?)),
        });
        print(lines.collect::<Result<String>>()?)
    }
}

/// The newest records of a release, or of all, newest first.
pub(super) async fn read(client: &Client, release: Option<&str>, limit: u16) -> Result<Vec<Box<RawValue>>> {
    let limit = limit.to_string();
    let query = [("limit", limit.as_str())];
    let page: Page = match release {
        Some(name) => client.get(&["v1", "releases", name, "decisions"], &query).await?,
        None => client.get(&["v1", "decisions"], &query).await?,
    };
    Ok(page.decisions)
}

/// A decision on a line.
pub(super) fn line(event: &Event) -> String {
    let Event { id, release, at_ms, by, why, .. } = event;
    let action = super::word(&event.action);
    let phases = match (event.from, event.to) {
        (from, to) if from == to => to.name().to_owned(),
        (from, to) => format!("{} → {}", from.name(), to.name()),
    };
    format!("{}  {id}  {release}  {action} ({phases}) by {by}: {why}\n", moment(*at_ms))
}
