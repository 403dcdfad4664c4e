//! Follows a control plane and prints what happens:
//! `cargo run --release --example follow -- http://127.0.0.1:8080/v1/bundle`

use anyhow::{Context, Result};
use halftone_embed::{Engine, Event, UrlSource};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).context("which URL?")?;

    let engine = Engine::new();
    let mut events = engine.subscribe();
    let _watch = engine.watch_url(UrlSource::new(&url)?)?;
    while let Some(event) = events.next().await {
        match event {
            Event::Changed(change) => {
                let rules = engine.rules();
                let rulesets: Vec<&str> = rules.rulesets().collect();
                println!("revision {} after {}: {}", change.revision, change.previous, rulesets.join(", "));
            }
            other => println!("{other:?}"),
        }
    }
    Ok(())
}
