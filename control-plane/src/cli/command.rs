//! `halftone pause`, `resume`, `approve`, `promote`, `abort`, `rollback`

use super::{
    client::{Client, ServerArgs, block_on},
    print,
};
use crate::release::{Command, view::Summary};
use anyhow::{Context, Result};
use clap::Args;
use reqwest::Method;

/// Flags of the commands that a person gives a release.
#[derive(Args, Debug)]
pub struct CommandArgs {
    /// The release.
    name: String,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

impl CommandArgs {
    /// Has the control plane do it, and says where the release is then.
    ///
    /// # Errors
    /// When the release does not allow it, or nobody answers.
    pub fn run(&self, command: Command) -> Result<()> {
        let body = match &self.reason {
            Some(reason) => serde_json::json!({ "reason": reason }).to_string(),
            None => String::new(),
        };
        let last = format!("{}:{}", self.name, command.name());
        let client = Client::new(&self.server)?;
        let answer = block_on(client.change(Method::POST, &["v1", "releases", &last], &[], body))?;
        let release: Summary = serde_json::from_str(&answer.body).context("the answer is not understood")?;
        let (phase, step, steps) = (release.phase.name(), release.step, release.steps);
        print(format!("{} is {phase}, at step {step} of {steps}: {}\n", release.name, release.why))
    }
}
