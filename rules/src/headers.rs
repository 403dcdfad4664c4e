//! The headers between the filter, the routes and the backend.

/// Every header of ours starts like this. The filter lets none of a client's pass.
pub const PREFIX: &str = "x-halftone-";
/// Which target serves the request; on the response too.
pub const TARGET: &str = "x-halftone-target";
/// What was decided, see [`crate::context`].
pub const CONTEXT: &str = "x-halftone-context";
/// Which route table finds the target: `xds/<ruleset>` for a decided request. The first `/`-separated
/// element is the scope: [`SCOPE_DECIDED`] or [`SCOPE_BOOTSTRAP`]. A proxy that chooses its table so sends every request to
/// the filter with the latter; where the header is missing, nobody reads it, and it is not set.
pub const ROUTE: &str = "x-halftone-route";
/// The scope of the control plane's routes.
pub const SCOPE_DECIDED: &str = "xds";
/// The scope of the routes in Envoy's bootstrap, for requests on which nothing was decided.
pub const SCOPE_BOOTSTRAP: &str = "bootstrap";
