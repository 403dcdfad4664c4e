//! `halftone trace`

mod log;
mod text;

use super::{
    Format,
    client::{Client, ServerArgs, block_on},
    print,
};
use crate::trace::{Explanation, Found, Id};
use anyhow::Result;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Args;
use halftone_proto::v1::EvaluationContext;
use log::Line;
use prost::Message;
use serde::Serialize;
use std::path::PathBuf;

/// Flags of `halftone trace`.
#[derive(Args, Debug)]
pub struct TraceArgs {
    /// A trace (32 hexadecimal digits, as `x-halftone-trace` of a response has them), or an evaluation (16): the second and
    /// the third part of the request's `traceparent`. A whole `traceparent` is its trace.
    id: Id,
    /// Find the request in a log, one JSON object a line, and not among those that backends reported: one whose trace is not
    /// sampled. The backend's log with --log-format json and Envoy's, as `halftone envoy-bootstrap --access-log` writes it, are
    /// understood; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    from_log: Option<PathBuf>,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    server: ServerArgs,
}

/// What was found in a log.
#[derive(Serialize)]
struct Logged {
    requests: Vec<LoggedRequest>,
}

/// A line of a log, and why what it says was decided.
#[derive(Serialize)]
struct LoggedRequest {
    #[serde(flatten)]
    line: Line,
    #[serde(flatten)]
    explanation: Explanation,
}

impl TraceArgs {
    /// Prints what was decided for the requests, and why.
    ///
    /// # Errors
    /// When nothing is known of them, or nobody answers.
    pub fn run(&self) -> Result<()> {
        let client = Client::new(&self.server)?;
        let Some(file) = &self.from_log else {
            let id = self.id.digits();
            let found: Found = block_on(client.get(&["v1", "traces", &id], &[]))?;
            return print(match self.format {
                Format::Json => serde_json::to_string_pretty(&found)? + "\n",
                Format::Text => text::found(&self.id, &found),
            });
        };
        let lines = log::find(file, &self.id)?;
        let explained = lines.into_iter().map(|line| {
            Ok(LoggedRequest { explanation: block_on(explain(&client, line.decided.as_ref()))?, line })
        });
        let logged = Logged { requests: explained.collect::<Result<_>>()? };
        print(match self.format {
            Format::Json => serde_json::to_string_pretty(&logged)? + "\n",
            Format::Text => text::logged(&self.id, &logged.requests),
        })
    }
}

/// Why this was decided, by the history of the control plane.
async fn explain(client: &Client, decided: Option<&EvaluationContext>) -> Result<Explanation> {
    let Some(decided) = decided else { return Ok(Explanation::undecided()) };
    let context = URL_SAFE_NO_PAD.encode(decided.encode_to_vec());
    client.get(&["v1", "explanations"], &[("context", &context)]).await
}
