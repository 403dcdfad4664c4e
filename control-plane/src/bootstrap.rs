//! `halftone envoy-bootstrap`: the configuration that plain Envoy starts with.

use crate::{module::ModuleArgs, xds::Form};
use anyhow::Context;
use clap::{Args, ValueEnum, builder::NonEmptyStringValueParser};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

const BOOTSTRAP: &str = include_str!("../../envoy/bootstrap.yaml.template");
const ACCESS_LOG_JSON: &str = include_str!("../../envoy/access-log-json.yaml");
const ACCESS_LOG_TEXT: &str = include_str!("../../envoy/access-log-text.yaml");
const SCOPES: &str = include_str!("../../envoy/scopes.yaml.template");

/// Flags of `halftone envoy-bootstrap`.
#[derive(Args, Debug)]
pub struct BootstrapArgs {
    /// Folder to write `bootstrap.yaml` and `scopes.yaml` to. Created when it is missing.
    #[arg(long, default_value = "envoy-bootstrap")]
    pub out: PathBuf,
    /// Where Envoy takes requests.
    #[arg(long, default_value = "127.0.0.1:10000")]
    pub listen: SocketAddr,
    /// Envoy's admin interface.
    #[arg(long, default_value = "127.0.0.1:9901")]
    pub admin: SocketAddr,
    /// The control plane's xDS server.
    #[arg(long, default_value = "127.0.0.1:18000")]
    pub xds: SocketAddr,
    /// The form in which changes travel: the state of the world, or only what changed.
    #[arg(long, value_enum, default_value_t = Form::StateOfTheWorld)]
    pub xds_form: Form,
    /// What serves the requests on which nothing is decided, and all requests while there are no rules.
    #[arg(long)]
    pub default_endpoint: SocketAddr,
    /// The filter module that Envoy loads at its start.
    #[command(flatten)]
    pub module: ModuleArgs,
    /// Name of this Envoy among the nodes.
    #[arg(long, default_value = "envoy", value_parser = NonEmptyStringValueParser::new())]
    pub node_id: String,
    /// Name of the group that this Envoy belongs to; rulesets can be for some groups only (`match.node_clusters`).
    #[arg(long, default_value = "edge", value_parser = NonEmptyStringValueParser::new())]
    pub node_cluster: String,
    /// File for Envoy's access log, with what was decided on each request; `stdout` is Envoy's standard output. Left out,
    /// there is no access log.
    #[arg(long, value_name = "FILE|stdout")]
    pub access_log: Option<PathBuf>,
    /// The form of the access log's lines. JSON is what `halftone simulate` reads.
    #[arg(long, value_enum, default_value_t)]
    pub access_log_format: AccessLogFormat,
}

/// The form of an access log's lines.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum AccessLogFormat {
    /// A JSON object each.
    #[default]
    Json,
    /// Text for people.
    Text,
}

/// Writes the two files; the answer is the path of the bootstrap.
///
/// # Errors
/// When there is no filter module, a file cannot be written, or a value cannot stand in YAML.
pub fn write(args: &BootstrapArgs) -> anyhow::Result<PathBuf> {
    let filter = args.module.on_proxy()?;
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("the folder {} cannot be made", args.out.display()))?;
    // Envoy takes the scopes' path as absolute only.
    let out = std::path::absolute(&args.out)?;
    let scopes = out.join("scopes.yaml");
    let values = [
        ("node_id", quoted(&args.node_id)?),
        ("node_cluster", quoted(&args.node_cluster)?),
        ("filter", quoted(path(&filter)?)?),
        ("scopes", quoted(path(&scopes)?)?),
        ("listen", socket_address(args.listen)),
        ("admin", socket_address(args.admin)),
        ("xds", socket_address(args.xds)),
        ("ads_api", ads_api(args.xds_form).to_owned()),
        ("default_endpoint", socket_address(args.default_endpoint)),
        ("access_log", access_log(args)?),
    ];
    let bootstrap = out.join("bootstrap.yaml");
    for (template, file) in [(BOOTSTRAP, &bootstrap), (SCOPES, &scopes)] {
        std::fs::write(file, filled(template, &values))
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(bootstrap)
}

/// The template with the values in it. What looks like a place for one in a value is left alone.
fn filled(template: &str, values: &[(&str, String)]) -> String {
    let mut pieces = template.split("${");
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let known = piece.split_once('}').and_then(|(name, after)| {
            values.iter().find(|(other, _)| *other == name).map(|(_, value)| (value.as_str(), after))
        });
        match known {
            Some((value, after)) => text.extend([value, after]),
            None => text.extend(["${", piece]),
        }
    }
    text
}

/// The form's name in Envoy's `ApiConfigSource`.
fn ads_api(form: Form) -> &'static str {
    match form {
        Form::StateOfTheWorld => "GRPC",
        Form::Delta => "DELTA_GRPC",
    }
}

/// The part of the connection manager's configuration that is in `envoy/`, as far to the right as it stands in the
/// template.
fn access_log(args: &BootstrapArgs) -> anyhow::Result<String> {
    let Some(file) = &args.access_log else {
        return Ok("# No access log: --access-log was not given.".to_owned());
    };
    let file =
        if file == Path::new("stdout") { PathBuf::from("/dev/stdout") } else { std::path::absolute(file)? };
    let snippet = match args.access_log_format {
        AccessLogFormat::Json => ACCESS_LOG_JSON,
        AccessLogFormat::Text => ACCESS_LOG_TEXT,
    };
    let snippet = snippet.replace("<file>", &quoted(path(&file)?)?);
    let lines: Vec<&str> = snippet.lines().filter(|line| !line.starts_with('#')).collect();
    Ok(lines.join("\n                "))
}

fn socket_address(address: SocketAddr) -> String {
    format!("{{socket_address: {{address: \"{}\", port_value: {}}}}}", address.ip(), address.port())
}

/// JSON's strings are YAML's double-quoted ones.
fn quoted(text: &str) -> anyhow::Result<String> {
    Ok(serde_json::to_string(text)?)
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("the path {} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_put_into_the_template_and_not_into_each_other() {
        let values = [("a", "${b}".to_owned()), ("b", "2".to_owned())];
        assert_eq!(filled("${a}${b} ${c} $a} ${", &values), "${b}2 ${c} $a} ${");
    }
}
