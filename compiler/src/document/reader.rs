//! Reads the fields of a ruleset.

use super::{
    Document, Spanned,
    fields::Fields,
    shape::{ATTRIBUTE, MATCH, RULESET, attribute_types, sources},
};
use crate::{
    diagnostic::{Code, Diagnostics, Span},
    expression::{
        DeclaredAttribute, KEYWORDS, NOW, RESERVED, SizeLimit, UnknownName, cookie_source, header_source,
        is_attribute_name, query_source,
    },
    limits::MAX_NODE_CLUSTERS,
    suggest::did_you_mean,
    yaml::{Key, Kind, Node},
};
use halftone_rules::{Scope, Source, Type, Value, bundle::Constant, limits::MAX_NAME_BYTES};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{Ipv4Addr, Ipv6Addr},
};

/// Reads the document out of its tree. Whatever is wrong is reported and left out.
pub(crate) fn read(text: &str, root: Node, diagnostics: &mut Diagnostics<'_>) -> Option<Document> {
    let mut fields = Fields::of(root, &RULESET, diagnostics)?;
    let mut reader = Reader { text, diagnostics, next_id: 0 };
    if let Some(version) = fields.required("version", reader.diagnostics) {
        reader.version(&version);
    }
    let mut names = HashSet::new();
    let (scope, node_clusters) = fields.optional("match").map(|node| reader.scope(node)).unwrap_or_default();
    Some(Document {
        name: fields.optional("name").and_then(|node| reader.name(&node, "a ruleset's name")),
        scope,
        node_clusters,
        unit: fields.optional("unit").and_then(|node| reader.text(&node, "`unit`")),
        attributes: fields.optional("attributes").map(|node| reader.attributes(node)).unwrap_or_default(),
        targets: fields.optional("targets").map(|node| reader.targets(node)),
        default: fields.optional("default").and_then(|node| reader.name(&node, "a target's name")),
        holdout: fields.optional("holdout").and_then(|node| reader.share(&node, "holdout")).unwrap_or(0),
        layers: fields.optional("layers").map(|node| reader.layers(node)).unwrap_or_default(),
        rules: fields
            .required("rules", reader.diagnostics)
            .map(|node| reader.rules(node, &mut names))
            .unwrap_or_default(),
        experiments: fields
            .optional("experiments")
            .map(|node| reader.experiments(node, &mut names))
            .unwrap_or_default(),
        overrides: fields.optional("overrides").map(|node| reader.overrides(node)).unwrap_or_default(),
        unit_cookie: fields.optional("unit_cookie").and_then(|node| reader.unit_cookie(node)),
        next_id: reader.next_id,
    })
}

pub(super) struct Reader<'a, 'b> {
    pub(super) text: &'a str,
    pub(super) diagnostics: &'a mut Diagnostics<'b>,
    /// Of the next expression.
    pub(super) next_id: usize,
}

impl Reader<'_, '_> {
    fn version(&mut self, node: &Node) {
        let Some(version) = self.text(node, "`version`") else {
            return;
        };
        if version.value != "v1" {
            let message = format!("version {:?} is not known", version.value);
            self.diagnostics.report_with_help(Code::WrongForm, &version.span, message, "write `version: v1`");
        }
    }

    /// A scalar's text.
    pub(super) fn text(&mut self, node: &Node, what: &str) -> Option<Spanned<String>> {
        if let Kind::Scalar { text, .. } = &node.kind {
            return Some(Spanned { span: node.span.clone(), value: text.clone() });
        }
        let message = format!("{what} is a text, but this is {}", node.describe());
        self.diagnostics.report(Code::WrongForm, &node.span, message);
        None
    }

    pub(super) fn name(&mut self, node: &Node, what: &str) -> Option<Spanned<String>> {
        let name = self.text(node, what)?;
        self.check_name(&name.value, &name.span, what).then_some(name)
    }

    /// Names stand in headers, metrics and URLs.
    pub(super) fn check_name(&mut self, name: &str, span: &Span, what: &str) -> bool {
        let problem = crate::compile::name_problem(name);
        if let Some(problem) = problem {
            self.diagnostics.report_with_help(
                Code::InvalidName,
                span,
                format!("{what} {problem}"),
                format!("use letters, digits, `.`, `_` and `-`, starting with a letter or a digit, at most {MAX_NAME_BYTES}"),
            );
        }
        problem.is_none()
    }

    pub(super) fn list(&mut self, node: Node, what: &str) -> Vec<Node> {
        let found = node.describe();
        if let Kind::Sequence(items) = node.kind {
            return items;
        }
        let message = format!("{what} is a list, but this is {found}");
        let written = self.text.get(node.span.clone()).unwrap_or_default();
        if matches!(node.kind, Kind::Scalar { .. }) && !written.contains('\n') {
            let help = format!("write [{written}]");
            self.diagnostics.report_with_help(Code::WrongForm, &node.span, message, help);
        } else {
            self.diagnostics.report(Code::WrongForm, &node.span, message);
        }
        Vec::new()
    }

    /// A list that has something in it: an empty one might mean all as well as none.
    pub(super) fn some(&mut self, node: Node, what: &str) -> Vec<Node> {
        if matches!(&node.kind, Kind::Sequence(items) if items.is_empty()) {
            let message = format!("{what} is empty");
            let help = "give it a value, or leave it out";
            self.diagnostics.report_with_help(Code::WrongForm, &node.span, message, help);
        }
        self.list(node, what)
    }

    pub(super) fn mapping(&mut self, node: Node, what: &str) -> Vec<(Key, Node)> {
        let found = node.describe();
        if let Kind::Mapping(entries) = node.kind {
            return entries;
        }
        self.diagnostics.report(
            Code::WrongForm,
            &node.span,
            format!("{what} is a mapping, but this is {found}"),
        );
        Vec::new()
    }

    /// Which requests it governs, and on which clusters of proxies.
    fn scope(&mut self, node: Node) -> (Scope, BTreeSet<String>) {
        let Some(mut fields) = Fields::of(node, &MATCH, self.diagnostics) else {
            return Default::default();
        };
        let hosts = fields.optional("hosts").map(|node| self.some(node, "`hosts`")).unwrap_or_default();
        let prefixes = fields.optional("path_prefixes").map(|node| self.some(node, "`path_prefixes`"));
        let clusters = fields.optional("node_clusters").map(|node| self.node_clusters(node));
        let scope = Scope {
            hosts: hosts.iter().filter_map(|node| self.host(node)).collect(),
            path_prefixes: prefixes
                .unwrap_or_default()
                .iter()
                .filter_map(|node| self.path_prefix(node))
                .collect(),
        };
        (scope, clusters.unwrap_or_default())
    }

    fn node_clusters(&mut self, node: Node) -> BTreeSet<String> {
        let nodes = self.some(node, "`node_clusters`");
        if let Some(first) = nodes.get(MAX_NODE_CLUSTERS) {
            let message =
                format!("{} clusters of proxies, but at most {MAX_NODE_CLUSTERS} are allowed", nodes.len());
            self.diagnostics.report(Code::TooLarge, &first.span, message);
        }
        let mut clusters = BTreeSet::new();
        for node in nodes {
            let Some(cluster) = self.text(&node, "the name of a cluster of proxies") else { continue };
            let fits = (1..=MAX_NAME_BYTES).contains(&cluster.value.len());
            if !fits || cluster.value.chars().any(char::is_control) {
                let message = "this is not the name of a cluster of proxies";
                let help = format!(
                    "write what stands under `node.cluster` in Envoy's bootstrap, at most {MAX_NAME_BYTES} bytes"
                );
                self.diagnostics.report_with_help(Code::InvalidName, &cluster.span, message, help);
            } else if !clusters.insert(cluster.value) {
                self.diagnostics.report(Code::DuplicateName, &cluster.span, "it is in the list already");
            }
        }
        clusters
    }

    fn host(&mut self, node: &Node) -> Option<String> {
        let host = self.text(node, "a host")?;
        let below = host.value.strip_prefix("*.");
        let name = below.unwrap_or(&host.value);
        // An IPv6 address stands in brackets; any other colon would start a port, which no host name has.
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let is_address = match address {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => name.parse::<Ipv4Addr>().is_ok(),
        };
        if below.is_some() && is_address {
            let help = "write the address alone: no names are below it";
            self.diagnostics.report_with_help(Code::WrongForm, &host.span, "this is not a host name", help);
            return None;
        }
        let is_label = |label: &str| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        // The dot of a fully qualified name may stand at the end.
        let is_name = name.strip_suffix('.').unwrap_or(name).split('.').all(is_label);
        if host.value.len() > 253 || !(is_address || is_name) {
            let help = "write a host name without port, or *.example.com for all names below example.com";
            self.diagnostics.report_with_help(Code::WrongForm, &host.span, "this is not a host name", help);
            return None;
        }
        Some(host.value.to_ascii_lowercase())
    }

    fn path_prefix(&mut self, node: &Node) -> Option<String> {
        let prefix = self.text(node, "a path prefix")?;
        if let Some(start) = prefix.value.strip_suffix('*') {
            let start = start.trim_end_matches('*').trim_end_matches('/');
            let start = if start.is_empty() { "/" } else { start };
            let message = "a path prefix has no wildcards: it takes what is below it anyway";
            let help = format!("write `{start}`");
            self.diagnostics.report_with_help(Code::WrongForm, &prefix.span, message, help);
            return None;
        }
        let valid = prefix.value.starts_with('/')
            && prefix.value.len() <= 1024
            && prefix.value.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#'));
        if !valid {
            let help = "a path prefix starts with `/` and has no query, for example /v2/models";
            self.diagnostics.report_with_help(
                Code::WrongForm,
                &prefix.span,
                "this is not a path prefix",
                help,
            );
            return None;
        }
        Some(prefix.value)
    }

    fn attributes(&mut self, node: Node) -> BTreeMap<String, DeclaredAttribute> {
        let mut attributes = BTreeMap::new();
        for (key, node) in self.mapping(node, "`attributes`") {
            let first = key.text.split('.').next().unwrap_or_default();
            if KEYWORDS.contains(&first) || RESERVED.contains(&first) {
                let help =
                    format!("conditions cannot use it: `{first}` is a word of CEL; write `{first}_value`");
                let message = format!("{:?} is not a name for an attribute", key.text);
                self.diagnostics.report_with_help(Code::InvalidName, &key.span, message, help);
                continue;
            }
            let valid = key.text.len() <= MAX_NAME_BYTES && is_attribute_name(&key.text);
            if !valid || first == "request" || key.text == NOW {
                let help = "use the form `user.tier`: letters, digits and `_`, parts joined by dots, not starting with `request`, and not `now`";
                let message = format!("{:?} is not a name for an attribute", key.text);
                self.diagnostics.report_with_help(Code::InvalidName, &key.span, message, help);
            } else if let Some(attribute) = self.attribute(&key, node) {
                attributes.insert(key.text, attribute);
            }
        }
        attributes
    }

    fn attribute(&mut self, key: &Key, node: Node) -> Option<DeclaredAttribute> {
        let mut fields = Fields::of(node, &ATTRIBUTE, self.diagnostics)?;
        let ty = match fields.optional("type") {
            Some(node) => self.ty(&node)?,
            None => Type::String,
        };
        let places = ["header", "cookie", "query", "source", "property", "constant"]
            .map(|field| fields.optional(field).map(|node| (field, node)));
        let mut places = places.into_iter().flatten();
        let (field, node) = match (places.next(), places.next()) {
            (Some(place), None) => place,
            (Some(_), Some((_, second))) => {
                let message = "an attribute comes from one place";
                let help = "keep one of `header`, `cookie`, `query`, `source`, `property` and `constant`";
                self.diagnostics.report_with_help(Code::WrongForm, &second.span, message, help);
                return None;
            }
            (None, _) => {
                let message = format!("the attribute `{}` does not say where it comes from", key.text);
                let help = "add `header: x-name`, `cookie: name`, `query: name`, `property: a.b`, `constant: value`, or `source: path`, `method`, `host` or `client_address`";
                self.diagnostics.report_with_help(Code::MissingField, &key.span, message, help);
                return None;
            }
        };
        let source = match field {
            "header" => self.named(&node, "`header`", header_source)?,
            "cookie" => self.named(&node, "`cookie`", cookie_source)?,
            "query" => self.named(&node, "`query`", query_source)?,
            "property" => self.property(node)?,
            "constant" => return self.constant(&node, ty),
            _ => self.source(&node)?,
        };
        Some(DeclaredAttribute::Read(source, ty))
    }

    /// A property by the parts of its name: a list, or a text with dots between them.
    fn property(&mut self, node: Node) -> Option<Source> {
        let span = node.span.clone();
        let parts: Vec<String> = if let Kind::Scalar { .. } = node.kind {
            self.text(&node, "`property`")?.value.split('.').map(ToString::to_string).collect()
        } else {
            let parts = self.list(node, "`property`");
            let part = |node: &Node| Some(self.text(node, "a part of a property's name")?.value);
            parts.iter().map(part).collect::<Option<_>>()?
        };
        if parts.is_empty() || parts.iter().any(|part| part.is_empty() || part.contains('\0')) {
            let help = "write connection.requested_server_name, or [metadata, filter_metadata, envoy.filters.http.jwt_authn, jwt, sub]";
            self.diagnostics.report_with_help(
                Code::WrongForm,
                &span,
                "this is not the name of a property",
                help,
            );
            return None;
        }
        Some(Source::Property(parts))
    }

    fn constant(&mut self, node: &Node, ty: Type) -> Option<DeclaredAttribute> {
        let text = self.text(node, "`constant`")?;
        if text.value.len() > SizeLimit::Scalar.bytes() {
            SizeLimit::Scalar.report(&text.span, self.diagnostics);
            return None;
        }
        let constant = match ty.parse(text.value.as_bytes()) {
            Value::Bool(value) => Constant::Bool(value),
            Value::Int(value) => Constant::Int(value),
            Value::Uint(value) => Constant::Uint(value),
            Value::Double(value) => Constant::Double(value),
            Value::String(value) => Constant::String(value.into()),
            Value::Bytes(value) => Constant::Bytes(value.into()),
            Value::Semver(value) => Constant::Semver(value.into()),
            Value::List(_) | Value::Timestamp(_) | Value::Duration(_) | Value::Error(_) => {
                let message = format!("{:?} is no constant of type {}", text.value, ty.name());
                let help = "change the type; a list of constants is written in the condition: [\"a\", \"b\"]";
                self.diagnostics.report_with_help(Code::WrongForm, &text.span, message, help);
                return None;
            }
        };
        Some(DeclaredAttribute::Constant(constant.into()))
    }

    fn ty(&mut self, node: &Node) -> Option<Type> {
        let name = self.text(node, "`type`")?;
        let found = Type::ALL.iter().copied().find(|ty| ty.name() == name.value);
        let found = found.filter(|ty| attribute_types().contains(&ty.name()));
        if found.is_none() {
            let help = match name.value.as_str() {
                "integer" | "number" | "long" => "write `int`, or `uint` when it is never negative".into(),
                "float" => "write `double`".into(),
                "str" | "text" => "write `string`".into(),
                "boolean" => "write `bool`".into(),
                other => did_you_mean(other, attribute_types()),
            };
            let message = format!("an attribute has no type {:?}", name.value);
            self.diagnostics.report_with_help(Code::WrongForm, &name.span, message, help);
        }
        found
    }

    /// A source that `resolve` makes of a name.
    fn named(
        &mut self,
        node: &Node,
        what: &str,
        resolve: fn(&str) -> Result<Source, UnknownName>,
    ) -> Option<Source> {
        let name = self.text(node, what)?;
        match resolve(&name.value) {
            Ok(source) => Some(source),
            Err(UnknownName { code, message, help }) => {
                self.diagnostics.report_with_help(code, &name.span, message, help);
                None
            }
        }
    }

    fn source(&mut self, node: &Node) -> Option<Source> {
        let name = self.text(node, "`source`")?;
        match name.value.as_str() {
            "path" => Some(Source::Path),
            "method" => Some(Source::Method),
            "host" => Some(Source::Host),
            "client_address" => Some(Source::ClientAddress),
            other => {
                let help = did_you_mean(other, sources());
                let message = format!("there is no source {other:?}");
                self.diagnostics.report_with_help(Code::WrongForm, &name.span, message, help);
                None
            }
        }
    }
}
