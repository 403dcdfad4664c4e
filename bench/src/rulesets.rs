//! The rulesets and requests that the benchmarks share.

use anyhow::{Result, anyhow};
use halftone_compiler::{compile, link};
use halftone_rules::codec;

/// One rule that splits.
pub(crate) const CANARY: &str =
    "version: v1\nrules:\n  - {name: canary, condition: user.id > 0, weight: 0.1, target: v2}\n";

/// Ten rules as a team would write them: staff, tenants, devices, a ramp. The request of [`headers`]
/// passes all of them and takes the last one.
pub(crate) const TEN_RULES: &str = r#"
version: v1
attributes:
  tenant: {header: x-tenant}
  tier: {header: x-tier}
  app.version: {header: x-app-version, type: int}
rules:
  - {name: staff, condition: 'request.headers["x-staff"] == "true"', target: v3}
  - {name: pinned, condition: 'tenant in ["acme", "globex", "initech"]', target: v1}
  - {name: pilot, condition: 'tenant == "umbrella" && tier == "gold"', target: v3}
  - {name: old-apps, condition: 'app.version < 300', target: v1}
  - {name: batch, condition: 'request.path.startsWith("/v2/batch")', target: v1}
  - {name: internal, condition: 'request.host.endsWith(".internal")', target: v3}
  - {name: free, condition: 'tier == "free" || tier == "trial"', target: v1}
  - {name: beta, condition: 'user.id % 1000 < 5 && tier != "platinum"', target: v3}
  - {name: gold-ramp, condition: 'tier == "gold"', weight: 0.2, target: v2}
  - {name: ramp, weight: 0.999999, target: v2}
"#;

/// A rule, and experiments that all requests take part in.
pub(crate) const THREE_EXPERIMENTS: &str = r"
version: v1
rules: [{name: recommendation-canary, weight: 0.999999, target: ranker-2026-11}]
experiments:
  - {name: checkout-button, arms: [{name: control}]}
  - {name: prompt-length, arms: [{name: treatment}]}
  - {name: retrieval-depth, arms: [{name: control}]}
";

/// One rule per tenant, and a ramp behind them. The request of [`headers`] belongs to a tenant in the middle.
pub(crate) fn tenants(count: usize) -> String {
    let mut text = String::from("version: v1\nattributes:\n  tenant: {header: x-tenant}\nrules:\n");
    for tenant in 0..count {
        let name = if tenant == count / 2 { "hooli".into() } else { format!("tenant-{tenant:05}") };
        text += &format!(
            "  - {{name: rule-{tenant}, condition: 'tenant == \"{name}\" && user.id > 0', weight: 0.5, target: v2}}\n"
        );
    }
    text
}

/// A request through a mesh, with the headers that those usually have.
pub(crate) fn headers() -> Vec<(&'static str, &'static str)> {
    vec![
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "models.example.com"),
        (":path", "/v2/models/digits/infer"),
        ("content-type", "application/json"),
        ("content-length", "412"),
        ("user-agent", "python-requests/2.32.3"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip, deflate"),
        ("x-forwarded-for", "10.1.2.3"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "6d8ab1a8-1f3c-4d43-8a36-51e9a46a9e33"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("x-tenant", "hooli"),
        ("x-tier", "silver"),
        ("x-app-version", "412"),
        ("x-user-id", "123456"),
        ("x-staff", "false"),
    ]
}

/// A ruleset's bundle.
pub(crate) fn bundle(text: &str) -> Result<Vec<u8>> {
    let compiled = compile(text, "digits")
        .map_err(|problems| anyhow!("{}", halftone_compiler::render("bench", text, &problems)))?;
    Ok(codec::encode(&link(1, [&compiled])?)?)
}
