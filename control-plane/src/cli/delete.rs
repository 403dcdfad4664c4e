//! `halftone delete`

use super::{
    client::{Client, ServerArgs, block_on},
    print,
};
use anyhow::Result;
use clap::Args;
use reqwest::Method;

/// Flags of `halftone delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// What: `ruleset/NAME` or `release/NAME`.
    #[arg(value_parser = resource)]
    what: Resource,
    /// Delete a promoted release even if its units move back to what the rules say.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// What can be deleted.
#[derive(Clone, Debug)]
struct Resource {
    /// Its part of the path.
    collection: &'static str,
    name: String,
}

fn resource(text: &str) -> Result<Resource, String> {
    let (collection, name) = match text.split_once('/') {
        Some(("ruleset", name)) => ("rulesets", name),
        Some(("release", name)) => ("releases", name),
        _ => return Err("write ruleset/NAME or release/NAME".to_owned()),
    };
    Ok(Resource { collection, name: name.to_owned() })
}

impl DeleteArgs {
    /// Deletes it.
    ///
    /// # Errors
    /// When it cannot be deleted, or nobody answers.
    pub fn run(&self) -> Result<()> {
        let Resource { collection, name } = &self.what;
        if self.force && *collection == "rulesets" {
            anyhow::bail!("--force is for releases: a ruleset with releases cannot be deleted");
        }
        let query: &[_] = if self.force { &[("force", "true")] } else { &[] };
        let client = Client::new(&self.server)?;
        block_on(client.change(Method::DELETE, &["v1", collection, name], query, String::new()))?;
        print(format!("{name} was deleted\n"))
    }
}
