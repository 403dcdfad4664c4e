//! `halftone explain`

use super::{Format, Source};
use anyhow::{Context, Result};
use clap::Args;
use halftone_compiler::{Explanation, explain, link};
use halftone_rules::{Request, codec};
use std::path::PathBuf;

/// Flags of `halftone explain`.
#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// Files with rulesets; `-` is standard input.
    #[arg(long = "ruleset", required = true, value_name = "FILE")]
    rulesets: Vec<PathBuf>,
    /// A header of the request, for example `--header x-user-id=42`.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Path of the request.
    #[arg(long, default_value = "/")]
    path: String,
    /// Method of the request.
    #[arg(long, default_value = "GET")]
    method: String,
    /// Host of the request.
    #[arg(long, default_value = "localhost")]
    host: String,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

fn header(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_ascii_lowercase(), value.to_owned()))
}

impl Request for ExplainArgs {
    fn header(&self, name: &str) -> Option<&[u8]> {
        let text = match name {
            ":path" => &self.path,
            ":method" => &self.method,
            ":authority" => &self.host,
            _ => self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value)?,
        };
        Some(text.as_bytes())
    }
}

impl ExplainArgs {
    /// Prints how the request is decided.
    ///
    /// # Errors
    /// When a ruleset does not compile, or none governs the request.
    pub fn run(&self) -> Result<()> {
        let sources = self.rulesets.iter().map(|file| Source::read(file)).collect::<Result<Vec<_>>>()?;
        let compiled = sources.iter().map(Source::compiled).collect::<Result<Vec<_>>>()?;
        let bundle = codec::decode(&codec::encode(&link(1, compiled)?)?)?;
        let explanation = explain(&bundle, self)
            .context("no ruleset governs this request: check `match` against --host and --path")?;
        match self.format {
            Format::Json => println!("{}", serde_json::to_string_pretty(&explanation)?),
            Format::Text => print(&explanation),
        }
        Ok(())
    }
}

fn print(explanation: &Explanation) {
    println!("ruleset {}", explanation.ruleset);
    println!("  unit: {}", explanation.unit.as_deref().unwrap_or("none"));
    for attribute in &explanation.attributes {
        println!("  {} ({}, {}): {}", attribute.name, attribute.ty, attribute.source, attribute.value);
    }
    for outcome in &explanation.rules {
        println!("{} {}: {}", if outcome.taken { "*" } else { " " }, outcome.rule, outcome.why);
    }
    println!("-> {} ({})", explanation.target, explanation.reason);
}
