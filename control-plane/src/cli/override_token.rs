//! `halftone override`: tokens that give a request a target whatever the rules say.

use crate::{
    cli::{print, print_text},
    override_key,
};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use ed25519_dalek::Signer;
use halftone_rules::token::{Claims, HEADER, MAX_LIFETIME_SECONDS};
use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

/// Arguments of `halftone override`.
#[derive(Args, Debug)]
pub struct OverrideArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Make a key for signing tokens, and its public half for `halftone serve --override-key-file`.
    NewKey(NewKeyArgs),
    /// Sign a token and print it: the value of the header x-halftone-override.
    Token(TokenArgs),
}

#[derive(Args, Debug)]
struct NewKeyArgs {
    /// File to write the key to; the public half goes beside it, with `.pub` at the end.
    #[arg(long, default_value = "override.key")]
    out: PathBuf,
}

#[derive(Args, Debug)]
struct TokenArgs {
    /// File with the key.
    #[arg(long, env = "HALFTONE_OVERRIDE_KEY", default_value = "override.key")]
    key: PathBuf,
    /// The ruleset that governs the requests.
    #[arg(long)]
    ruleset: String,
    /// The target that they are to get.
    #[arg(long)]
    target: String,
    /// How long the token holds: numbers with the units h, m and s, at most 744h (31 days).
    #[arg(long = "for", default_value = "1h", value_name = "DURATION")]
    lifetime: String,
}

impl OverrideArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When a file cannot be read or written, or an argument does not make sense.
    pub fn run(&self) -> anyhow::Result<()> {
        match &self.command {
            Command::NewKey(NewKeyArgs { out }) => {
                let public = override_key::write(&override_key::new()?, out)?;
                print_text(&format!("{}\n{}\n", out.display(), public.display()))
            }
            Command::Token(args) => args.run(),
        }
    }
}

impl TokenArgs {
    fn run(&self) -> anyhow::Result<()> {
        let key = override_key::read(&self.key)?;
        for (what, name) in [("--ruleset", &self.ruleset), ("--target", &self.target)] {
            if let Some(problem) = halftone_compiler::name_problem(name) {
                bail!("{what} {name:?} {problem}");
            }
        }
        let seconds = halftone_compiler::duration(&self.lifetime)
            .map_err(|problem| anyhow::anyhow!("--for: {problem}: write 8h or 30m"))?
            / 1_000_000_000;
        let seconds = u64::try_from(seconds).ok().filter(|s| (1..=MAX_LIFETIME_SECONDS).contains(s));
        let seconds = seconds
            .with_context(|| format!("--for {}: a token holds from 1s to 744h, 31 days", self.lifetime))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
        let claims =
            Claims { ruleset: &self.ruleset, target: &self.target, expires: now.saturating_add(seconds) };
        let token = claims.token(&key.sign(&claims.signed()).to_bytes());
        eprintln!("send it as the header `{HEADER}`; whoever has it can use it until it expires");
        print(format!("{token}\n"))
    }
}
