//! What the control plane wants proxies to do, in our own words.
//!
//! Nothing here knows of Envoy's protobuf; [`super::Resources`] turns a [`Snapshot`] into it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use halftone_compiler::TargetSpec;
use serde::Serialize;

/// One revision, complete: the bundle and where its targets live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The revision that is inside the bundle.
    pub revision: u64,
    /// The bundle's bytes, as the filter reads them.
    pub bundle: Arc<[u8]>,
    /// One entry for each ruleset; the order does not matter.
    pub rulesets: Vec<RulesetRoutes>,
    /// Rulesets as they were before, newest first: what a proxy may still have that was away when they changed.
    pub lately: Vec<RulesetRoutes>,
}

/// The targets of one ruleset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesetRoutes {
    /// The ruleset's name.
    pub name: String,
    /// Name of the target that takes what no route matches; without one, or if it has no endpoints, that is the
    /// proxy's fallback cluster.
    pub default: Option<String>,
    /// The ruleset's targets; the order does not matter. One without endpoints gets neither cluster nor route: its
    /// requests go to the default.
    pub targets: Vec<TargetSpec>,
}

/// The names on which the control plane and the user's Envoy bootstrap must agree.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxySettings {
    /// Name of the HTTP filter whose configuration is discovered, and of the plugin in it.
    pub filter_name: String,
    /// The plugin's root id.
    pub root_id: String,
    /// The VM's id. It must never depend on the revision: a constant id keeps the VM over an update.
    pub vm_id: String,
    /// Path of `filter.wasm` on the proxy's machine.
    pub wasm_file: PathBuf,
    /// Name of the route configuration.
    pub route_config_name: String,
    /// A static cluster of the user's bootstrap that takes what we have no route for.
    pub fallback_cluster: String,
    /// How long a request to the fallback cluster may take. Zero: no limit of ours.
    pub fallback_timeout: Duration,
    /// The static cluster of the user's bootstrap by which proxies reach the xDS server.
    pub control_plane_cluster: String,
    /// Who starts and continues traces.
    pub tracing: TraceOwner,
    /// Which of the traces that begin in the filter are sampled.
    pub trace_sample: TraceSample,
    /// Whose override tokens proxies take: public keys of Ed25519 as base64.
    pub override_keys: Vec<String>,
}

/// Who starts and continues traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TraceOwner {
    /// The filter, as a participant of W3C Trace Context.
    #[default]
    Filter,
    /// The proxy's own tracer.
    Proxy,
}

/// Which of the traces that begin in the filter are sampled: a share of each, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TraceSample {
    /// Of requests that go to what there was before: no rule took them, or they are what a candidate is compared with.
    pub stable: f64,
    /// Of requests that a rule took.
    pub candidate: f64,
}

impl Default for TraceSample {
    fn default() -> Self {
        Self { stable: 1.0, candidate: 1.0 }
    }
}

impl ProxySettings {
    /// The names that the documented bootstrap uses.
    pub fn new(wasm_file: impl Into<PathBuf>) -> Self {
        Self {
            filter_name: "halftone".to_owned(),
            root_id: "halftone".to_owned(),
            vm_id: "halftone".to_owned(),
            wasm_file: wasm_file.into(),
            route_config_name: "halftone".to_owned(),
            fallback_cluster: "default".to_owned(),
            fallback_timeout: Duration::ZERO,
            control_plane_cluster: "halftone-control-plane".to_owned(),
            tracing: TraceOwner::default(),
            trace_sample: TraceSample::default(),
            override_keys: Vec::new(),
        }
    }
}

/// Why a snapshot cannot become resources. Nothing changes for the proxies then.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SnapshotError {
    /// A name would make two clusters share one name, or a header value that no request can carry.
    #[error("{what} name {name:?} is empty or has a character other than visible ASCII, or a '/'")]
    BadName {
        /// "ruleset" or "target".
        what: &'static str,
        /// The offending name.
        name: String,
    },
    /// Two rulesets, or two targets of one ruleset, have the same name.
    #[error("{what} {name:?} occurs twice")]
    Duplicate {
        /// "ruleset" or "target".
        what: &'static str,
        /// The offending name; a target's is given as `ruleset/target`.
        name: String,
    },
    /// The default is not among the ruleset's targets.
    #[error("ruleset {ruleset:?} names {default:?} as its default, which is not one of its targets")]
    UnknownDefault {
        /// The ruleset.
        ruleset: String,
        /// The name that is not a target.
        default: String,
    },
    /// The wasm file's path is not UTF-8, which protobuf cannot carry.
    #[error("the path of the wasm file is not valid UTF-8")]
    BadWasmFile,
}

impl Snapshot {
    /// Checks what would otherwise surface as a NACK from every proxy.
    pub(super) fn check(&self) -> Result<(), SnapshotError> {
        let mut rulesets = BTreeSet::new();
        for ruleset in &self.rulesets {
            check_name("ruleset", &ruleset.name)?;
            if !rulesets.insert(&ruleset.name) {
                return Err(SnapshotError::Duplicate { what: "ruleset", name: ruleset.name.clone() });
            }
            let mut targets = BTreeSet::new();
            for target in &ruleset.targets {
                check_name("target", &target.name)?;
                if !targets.insert(&target.name) {
                    let name = format!("{}/{}", ruleset.name, target.name);
                    return Err(SnapshotError::Duplicate { what: "target", name });
                }
            }
            if let Some(default) = ruleset.default.as_ref().filter(|default| !targets.contains(default)) {
                return Err(SnapshotError::UnknownDefault {
                    ruleset: ruleset.name.clone(),
                    default: default.clone(),
                });
            }
        }
        Ok(())
    }
}

fn check_name(what: &'static str, name: &str) -> Result<(), SnapshotError> {
    let bad = |byte: u8| !byte.is_ascii_graphic() || byte == b'/';
    if name.is_empty() || name.bytes().any(bad) {
        return Err(SnapshotError::BadName { what, name: name.to_owned() });
    }
    Ok(())
}
