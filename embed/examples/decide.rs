//! Loads a bundle or a ruleset and decides for some users:
//! `cargo run --release --example decide -- rules.yaml digits`

use anyhow::{Context, Result};
use halftone_embed::Engine;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().context("which file?")?;
    let ruleset = arguments.next().context("which ruleset?")?;

    let engine = Engine::load(file)?;
    let rules = engine.rules();
    for user in 1..=10u64 {
        let context = rules.context(&ruleset)?.set_if_read("user.id", user)?;
        let decision = context.decide().context("the ruleset governs nothing")?;
        println!("user {user}: {} by {}", decision.target, decision.rule.unwrap_or("the default"));
    }
    let explanation = rules.context(&ruleset)?.set_if_read("user.id", 1)?.explain();
    println!("user 1: {:#?}", explanation.context("the ruleset governs nothing")?);
    Ok(())
}
