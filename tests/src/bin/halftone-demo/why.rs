//! Why a user got a target, as `halftone trace` tells it.

use anyhow::{Context, Result};
use halftone_tests::{Stack, command, traffic::Exchange};
use serde_json::Value;

/// A request, and what `halftone trace` says of it.
pub(crate) struct Why {
    /// Its trace.
    pub(crate) trace: String,
    /// What was decided, and why; nothing when that is not known.
    pub(crate) told: Value,
}

/// Asks why the first request that was sent to a target was.
pub(crate) fn ask(stack: &Stack, exchanges: &[Exchange], target: &str) -> Result<Why> {
    let request = exchanges.iter().find(|exchange| exchange.target.as_deref() == Some(target));
    let trace = request.and_then(|request| request.trace.clone());
    let trace = trace.with_context(|| format!("no request to {target} has a trace"))?;
    let server = format!("http://{}", stack.control_plane()?.rest);
    let arguments = ["trace", &trace, "--format", "json", "--server", &server];
    let output = command(&stack.paths().halftone).args(arguments).output()?;
    let mut told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ok(Why { trace, told: told["requests"][0].take() })
}
