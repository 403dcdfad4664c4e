//! `halftone explain`

use super::{Format, Source, print};
use anyhow::{Context, Result};
use clap::Args;
use halftone_compiler::{Explanation, explain, link};
use halftone_rules::{self as rules, Request, Ruleset, Timestamp, codec};
use std::{
    fmt::Write,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

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
    /// Address that the request comes from.
    #[arg(long, value_name = "ADDRESS")]
    client_address: Option<String>,
    /// A property of the proxy, for example `--property connection.requested_server_name=example.com`. A dot within a
    /// part of the name is written `\.`.
    #[arg(long = "property", value_name = "NAME=VALUE", value_parser = property)]
    properties: Vec<(Vec<String>, String)>,
    /// Time of the request, for example 2026-01-31T08:00:00Z; now when left out.
    #[arg(long, value_name = "TIME", value_parser = halftone_compiler::timestamp)]
    now: Option<Timestamp>,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

fn header(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_ascii_lowercase(), value.to_owned()))
}

fn property(text: &str) -> std::result::Result<(Vec<String>, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    // The escaped dots are out of the way while the name is split at the others.
    let name = name.replace("\\.", "\0");
    Ok((name.split('.').map(|part| part.replace('\0', ".")).collect(), value.to_owned()))
}

fn current_time() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX))
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

    fn client_address(&self) -> Option<&[u8]> {
        self.client_address.as_deref().map(str::as_bytes)
    }

    fn property(&self, path: &[String]) -> Option<&[u8]> {
        self.properties.iter().find(|(other, _)| other == path).map(|(_, value)| value.as_bytes())
    }
}

impl ExplainArgs {
    /// Headers and properties that are given, and that nothing reads: most likely they are misspelt.
    fn unread(&self, rulesets: &[Ruleset]) -> Vec<String> {
        let is_read = |source: &rules::Source| {
            rulesets
                .iter()
                .flat_map(|ruleset| &ruleset.attributes)
                .any(|attribute| attribute.source == *source)
        };
        // Cookies come in a header that attributes do not name.
        let headers = self
            .headers
            .iter()
            .map(|(name, _)| name)
            .filter(|name| *name != "cookie" && !is_read(&rules::Source::Header((*name).clone())));
        let properties = self.properties.iter().map(|(name, _)| name);
        let properties = properties.filter(|name| !is_read(&rules::Source::Property((*name).clone())));
        headers
            .map(|name| format!("the header {name}"))
            .chain(properties.map(|name| {
                let parts: Vec<String> = name.iter().map(|part| part.replace('.', "\\.")).collect();
                format!("the property {}", parts.join("."))
            }))
            .collect()
    }

    /// Prints how the request is decided.
    ///
    /// # Errors
    /// When a ruleset does not compile, or none governs the request.
    pub fn run(&self) -> Result<()> {
        let sources = self.rulesets.iter().map(|file| Source::read(file)).collect::<Result<Vec<_>>>()?;
        let compiled = sources.iter().map(Source::compiled).collect::<Result<Vec<_>>>()?;
        let bundle = codec::decode(&codec::encode(&link(1, compiled)?)?)?;
        for unread in self.unread(&bundle.bundle().rulesets) {
            eprintln!("no rule reads {unread}");
        }
        let explanation = explain(&bundle, self, self.now.unwrap_or_else(current_time))
            .context("no ruleset governs this request: check `match` against --host and --path")?;
        print(match self.format {
            Format::Json => serde_json::to_string_pretty(&explanation)? + "\n",
            Format::Text => text(&explanation)?,
        })
    }
}

fn text(explanation: &Explanation) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(text, "ruleset {}", explanation.ruleset)?;
    writeln!(text, "  unit: {}", explanation.unit.as_deref().unwrap_or("none"))?;
    for attribute in &explanation.attributes {
        writeln!(text, "  {} ({}, {}): {}", attribute.name, attribute.ty, attribute.source, attribute.value)?;
    }
    for outcome in &explanation.rules {
        writeln!(text, "{} {}: {}", if outcome.taken { "*" } else { " " }, outcome.rule, outcome.why)?;
    }
    for outcome in &explanation.experiments {
        let taken = if outcome.taken { "*" } else { " " };
        writeln!(text, "{taken} experiment {}: {}", outcome.rule, outcome.why)?;
    }
    let forced = if explanation.overridden { ", an override names the unit" } else { "" };
    let held_out = if explanation.held_out { ", the unit is held out" } else { "" };
    let arm = explanation.arm.as_ref().map(|arm| format!(", arm {arm}")).unwrap_or_default();
    let epoch = explanation.epoch.map(|epoch| format!(", epoch {epoch}")).unwrap_or_default();
    writeln!(text, "-> {} ({}{arm}{epoch}{forced}{held_out})", explanation.target, explanation.reason)?;
    Ok(text)
}
