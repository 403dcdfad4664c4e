//! The control plane: takes rulesets over REST, compiles and proves them, keeps them, and brings every
//! proxy to the newest revision.
//!
//! To be read in this order: [`publisher`] (what a change goes through), [`node_clusters`]
//! (what differs between proxies), [`gate`] and [`store`] (what it
//! has to pass and where it is kept), [`api`] and [`xds`] (how changes come in and go out),
//! [`rollback`] (when no proxy takes one), [`fleet_metrics`] (how far they are), [`ledger`] (what came of requests), [`ids`] (what records are called),
//! [`release`] (what is tried, and what follows from it), [`hooks`] (who is told and asked), [`serve`] (how it all runs).
#![forbid(unsafe_code)]

pub mod api;
pub mod bootstrap;
pub mod cli;
pub mod fleet_metrics;
pub mod gate;
pub mod hooks;
pub mod ids;
pub mod ledger;
pub mod module;
pub mod node_clusters;
pub mod override_key;
pub mod precondition;
pub mod published_names;
pub mod publisher;
pub mod release;
pub mod rollback;
pub mod serve;
pub mod store;
pub mod terminal;
pub mod trace;
pub mod xds;
