//! The Envoys that are compared: the same bootstrap, but for the filter and the routes.

use super::Answer;
use anyhow::Result;
use base64::{Engine, engine::general_purpose::STANDARD};
use halftone_tests::Paths;
use std::{fmt::Write, path::Path};

/// What stands before the router.
pub(super) enum Filter {
    None,
    /// A module with the same callbacks as ours, which do nothing.
    EmptyWasm,
    /// Ours, with a bundle.
    Ours(Vec<u8>),
    Lua,
}

/// How requests find their target.
#[derive(Clone, Copy)]
pub(super) enum Routes {
    /// All take the same route.
    One,
    /// A route for each tenant of [`tenants`](crate::rulesets::tenants), by its header.
    PerTenant(usize),
}

/// Exports what ours exports for a request. Nothing is imported.
const EMPTY_MODULE: &str = r#"(module
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "_initialize"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) i32.const 0)
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_configure") (param i32 i32) (result i32) i32.const 1)
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) i32.const 0)
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) i32.const 0)
  (func (export "proxy_on_delete") (param i32)))"#;

/// The ten rules of `rulesets.rs` as somebody would write them in Lua, with a hash that Lua can compute. It stamps
/// the target and nothing else.
const LUA: &str = r#"
function bucket(seed, unit)
  local hash = 5381
  local text = seed .. "/" .. unit
  for at = 1, #text do hash = (hash * 33 + text:byte(at)) % 4294967296 end
  return hash % 1000000
end
function decide(headers)
  local tenant = headers:get("x-tenant")
  local tier = headers:get("x-tier")
  local version = tonumber(headers:get("x-app-version"))
  local path = headers:get(":path")
  local host = headers:get(":authority")
  local user = headers:get("x-user-id")
  local number = tonumber(user)
  if headers:get("x-staff") == "true" then return "v3" end
  if tenant == "acme" or tenant == "globex" or tenant == "initech" then return "v1" end
  if tenant == "umbrella" and tier == "gold" then return "v3" end
  if version and version < 300 then return "v1" end
  if path:sub(1, 9) == "/v2/batch" then return "v1" end
  if host:sub(-9) == ".internal" then return "v3" end
  if tier == "free" or tier == "trial" then return "v1" end
  if number and number % 1000 < 5 and tier ~= "platinum" then return "v3" end
  if tier == "gold" and user and bucket("gold-ramp", user) < 200000 then return "v2" end
  if user and bucket("ramp", user) < 999999 then return "v2" end
  return "v1"
end
function envoy_on_request(handle)
  local headers = handle:headers()
  local target = decide(headers)
  headers:replace("x-halftone-target", target)
  handle:streamInfo():dynamicMetadata():set("halftone", "target", target)
end
function envoy_on_response(handle)
  local decision = handle:streamInfo():dynamicMetadata():get("halftone")
  if decision then handle:headers():replace("x-halftone-target", decision["target"]) end
end
"#;

/// The bootstrap as JSON, which is YAML. Files that it names are written to `folder`.
pub(super) fn text(
    paths: &Paths,
    folder: &Path,
    filter: &Filter,
    routes: Routes,
    answer: Answer,
) -> Result<String> {
    let filter = match filter {
        Filter::None => String::new(),
        Filter::EmptyWasm => {
            let module = folder.join("empty.wasm");
            std::fs::write(&module, wat::parse_str(EMPTY_MODULE)?)?;
            wasm("empty", &module, "")
        }
        Filter::Ours(bundle) => {
            let bundle = STANDARD.encode(bundle);
            let value = format!(
                r#", configuration: {{"@type": type.googleapis.com/google.protobuf.BytesValue, value: "{bundle}"}}"#
            );
            wasm("halftone", &paths.filter, &value)
        }
        Filter::Lua => format!(
            r#"{{name: lua, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua,
               default_source_code: {{inline_string: "{}"}}}}}},"#,
            LUA.escape_default()
        ),
    };
    let mut table = String::new();
    if let Routes::PerTenant(count) = routes {
        for tenant in 0..count {
            let name = if tenant == count / 2 { "hooli".into() } else { format!("tenant-{tenant:05}") };
            let matched = format!("headers: [{{name: x-tenant, string_match: {{exact: {name}}}}}]");
            writeln!(table, "{{match: {{prefix: /, {matched}}}, {}}},", action(answer))?;
        }
    }
    let upstream = match answer {
        Answer::Envoy => String::new(),
        Answer::Upstream(address) => format!(
            "{{name: upstream, connect_timeout: 1s, load_assignment: {{cluster_name: upstream,
               endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]}}}}",
            address.ip(),
            address.port()
        ),
    };
    Ok(format!(
        r#"
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  clusters: [{upstream}]
  listeners:
    - name: edge
      address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
      filter_chains:
        - filters:
            - name: http
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: edge
                route_config:
                  virtual_hosts: [{{name: all, domains: ["*"], routes: [{table} {{match: {{prefix: /}}, {default}}}]}}]
                http_filters: [{filter} {{name: router, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]
"#,
        default = action(answer)
    ))
}

fn action(answer: Answer) -> &'static str {
    match answer {
        Answer::Envoy => "direct_response: {status: 200, body: {inline_string: ok}}",
        Answer::Upstream(_) => "route: {cluster: upstream}",
    }
}

fn wasm(name: &str, module: &Path, configuration: &str) -> String {
    format!(
        r#"{{name: {name}, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm,
           config: {{name: {name}, root_id: {name}{configuration},
           vm_config: {{vm_id: {name}, runtime: envoy.wasm.runtime.v8, code: {{local: {{filename: "{}"}}}}}}}}}}}},"#,
        module.display()
    )
}
