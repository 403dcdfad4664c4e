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
use std::{
    collections::{HashMap, hash_map::Entry},
    path::PathBuf,
};

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
    /// Whether there are older ones, which are not shown.
    more: bool,
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
        let log::Found { lines, more } = log::find(file, &self.id)?;
        let mut known = HashMap::new();
        let explained = lines.into_iter().map(|line| {
            let explanation = match &line.decided {
                Some(decided) => explain(&client, &mut known, decided)?,
                None => Explanation::undecided(),
            };
            Ok(LoggedRequest { explanation, line })
        });
        let logged = Logged { requests: explained.collect::<Result<_>>()?, more };
        print(match self.format {
            Format::Json => serde_json::to_string_pretty(&logged)? + "\n",
            Format::Text => text::logged(&self.id, &logged),
        })
    }
}

/// Why this was decided, by the history of the control plane, which is asked once for what many lines say.
fn explain(
    client: &Client,
    known: &mut HashMap<Vec<u8>, Explanation>,
    decided: &EvaluationContext,
) -> Result<Explanation> {
    Ok(match known.entry(decided.encode_to_vec()) {
        Entry::Occupied(known) => known.get().clone(),
        Entry::Vacant(vacant) => {
            let context = URL_SAFE_NO_PAD.encode(vacant.key());
            let explanation = block_on(client.get(&["v1", "explanations"], &[("context", &context)]))?;
            vacant.insert(explanation).clone()
        }
    })
}
