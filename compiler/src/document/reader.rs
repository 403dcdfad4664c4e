//! Reads the fields of a ruleset.

use super::{Document, Rule, Spanned, Target, fields::Fields};
use crate::{
    diagnostic::{Code, Diagnostics, Span},
    expression::{DeclaredAttribute, Expr, SourceMap, UnknownName, header_source, is_token, parse},
    limits::{MAX_CONDITION_BYTES, MAX_ENDPOINTS},
    suggest::did_you_mean,
    yaml::{Key, Kind, Node},
};
use halftone_rules::{
    Scope, Source, Type,
    bucket::{BUCKETS, share},
    limits::{MAX_NAME_BYTES, MAX_SEED_BYTES},
};
use std::{
    collections::{BTreeMap, HashSet},
    net::{Ipv6Addr, SocketAddr},
};

const RULESET_FIELDS: &[&str] =
    &["version", "name", "match", "unit", "attributes", "targets", "default", "rules"];
const MATCH_FIELDS: &[&str] = &["hosts", "path_prefixes"];
const ATTRIBUTE_FIELDS: &[&str] = &["header", "cookie", "source", "type"];
const TARGET_FIELDS: &[&str] = &["endpoints"];
const RULE_FIELDS: &[&str] = &["name", "condition", "weight", "target", "seed"];

/// Reads the document out of its tree. Whatever is wrong is reported and left out.
pub(crate) fn read(text: &str, root: Node, diagnostics: &mut Diagnostics<'_>) -> Option<Document> {
    let mut fields = Fields::of(root, "a ruleset", RULESET_FIELDS, diagnostics)?;
    let mut reader = Reader { text, diagnostics, next_id: 0 };
    if let Some(version) = fields.required("version", reader.diagnostics) {
        reader.version(&version);
    }
    Some(Document {
        name: fields.optional("name").and_then(|node| reader.name(&node, "a ruleset's name")),
        scope: fields.optional("match").map(|node| reader.scope(node)).unwrap_or_default(),
        unit: fields.optional("unit").and_then(|node| reader.text(&node, "`unit`")),
        attributes: fields.optional("attributes").map(|node| reader.attributes(node)).unwrap_or_default(),
        targets: fields.optional("targets").map(|node| reader.targets(node)),
        default: fields.optional("default").and_then(|node| reader.name(&node, "a target's name")),
        rules: fields
            .required("rules", reader.diagnostics)
            .map(|node| reader.rules(node))
            .unwrap_or_default(),
    })
}

struct Reader<'a, 'b> {
    text: &'a str,
    diagnostics: &'a mut Diagnostics<'b>,
    /// Of the next expression.
    next_id: usize,
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
    fn text(&mut self, node: &Node, what: &str) -> Option<Spanned<String>> {
        if let Kind::Scalar { text, .. } = &node.kind {
            return Some(Spanned { span: node.span.clone(), value: text.clone() });
        }
        let message = format!("{what} is a text, but this is {}", node.describe());
        self.diagnostics.report(Code::WrongForm, &node.span, message);
        None
    }

    fn name(&mut self, node: &Node, what: &str) -> Option<Spanned<String>> {
        let name = self.text(node, what)?;
        self.check_name(&name.value, &name.span, what).then_some(name)
    }

    /// Names stand in headers, metrics and URLs.
    fn check_name(&mut self, name: &str, span: &Span, what: &str) -> bool {
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

    fn list(&mut self, node: Node, what: &str) -> Vec<Node> {
        let found = node.describe();
        if let Kind::Sequence(items) = node.kind {
            return items;
        }
        self.diagnostics.report(
            Code::WrongForm,
            &node.span,
            format!("{what} is a list, but this is {found}"),
        );
        Vec::new()
    }

    fn mapping(&mut self, node: Node, what: &str) -> Vec<(Key, Node)> {
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

    fn scope(&mut self, node: Node) -> Scope {
        let Some(mut fields) = Fields::of(node, "`match`", MATCH_FIELDS, self.diagnostics) else {
            return Scope::default();
        };
        let hosts = fields.optional("hosts").map(|node| self.list(node, "`hosts`")).unwrap_or_default();
        let prefixes = fields.optional("path_prefixes").map(|node| self.list(node, "`path_prefixes`"));
        Scope {
            hosts: hosts.iter().filter_map(|node| self.host(node)).collect(),
            path_prefixes: prefixes
                .unwrap_or_default()
                .iter()
                .filter_map(|node| self.path_prefix(node))
                .collect(),
        }
    }

    fn host(&mut self, node: &Node) -> Option<String> {
        let host = self.text(node, "a host")?;
        let name = host.value.strip_prefix("*.").unwrap_or(&host.value);
        // An IPv6 address stands in brackets; any other colon would start a port, which no host name has.
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let valid = host.value.len() <= 253
            && match address {
                Some(address) => address.parse::<Ipv6Addr>().is_ok(),
                None => {
                    !name.is_empty()
                        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
                }
            };
        if !valid {
            let help = "write a host name without port, or *.example.com for all names below example.com";
            self.diagnostics.report_with_help(Code::WrongForm, &host.span, "this is not a host name", help);
            return None;
        }
        Some(host.value.to_ascii_lowercase())
    }

    fn path_prefix(&mut self, node: &Node) -> Option<String> {
        let prefix = self.text(node, "a path prefix")?;
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
            let valid = key.text.len() <= MAX_NAME_BYTES
                && key.text.split('.').all(|part| {
                    part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                        && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                });
            if !valid || key.text.split('.').next() == Some("request") {
                let help = "use the form `user.tier`: letters, digits and `_`, parts joined by dots, not starting with `request`";
                let message = format!("{:?} is not a name for an attribute", key.text);
                self.diagnostics.report_with_help(Code::InvalidName, &key.span, message, help);
            } else if let Some(attribute) = self.attribute(&key, node) {
                attributes.insert(key.text, attribute);
            }
        }
        attributes
    }

    fn attribute(&mut self, key: &Key, node: Node) -> Option<DeclaredAttribute> {
        let mut fields = Fields::of(node, "an attribute", ATTRIBUTE_FIELDS, self.diagnostics)?;
        let ty = match fields.optional("type") {
            Some(node) => self.ty(&node)?,
            None => Type::String,
        };
        let places =
            ["header", "cookie", "source"].map(|field| fields.optional(field).map(|node| (field, node)));
        let mut places = places.into_iter().flatten();
        let (field, node) = match (places.next(), places.next()) {
            (Some(place), None) => place,
            (Some(_), Some((_, second))) => {
                let message = "an attribute comes from one place";
                let help = "keep one of `header`, `cookie` and `source`";
                self.diagnostics.report_with_help(Code::WrongForm, &second.span, message, help);
                return None;
            }
            (None, _) => {
                let message = format!("the attribute `{}` does not say where it comes from", key.text);
                let help = "add `header: x-name`, `cookie: name`, or `source: path`, `method` or `host`";
                self.diagnostics.report_with_help(Code::MissingField, &key.span, message, help);
                return None;
            }
        };
        let source = match field {
            "header" => self.header(&node)?,
            "cookie" => self.cookie(&node)?,
            _ => self.source(&node)?,
        };
        Some(DeclaredAttribute { source, ty })
    }

    fn ty(&mut self, node: &Node) -> Option<Type> {
        let name = self.text(node, "`type`")?;
        let types = [Type::Bool, Type::Int, Type::Uint, Type::Double, Type::String];
        let found = types.into_iter().find(|ty| ty.name() == name.value);
        if found.is_none() {
            let help = did_you_mean(&name.value, types.map(Type::name));
            let message = format!("there is no type {:?}", name.value);
            self.diagnostics.report_with_help(Code::WrongForm, &name.span, message, help);
        }
        found
    }

    fn header(&mut self, node: &Node) -> Option<Source> {
        let header = self.text(node, "`header`")?;
        match header_source(&header.value) {
            Ok(source) => Some(source),
            Err(UnknownName { code, message, help }) => {
                self.diagnostics.report_with_help(code, &header.span, message, help);
                None
            }
        }
    }

    fn cookie(&mut self, node: &Node) -> Option<Source> {
        let name = self.text(node, "`cookie`")?;
        if !is_token(&name.value) {
            let help =
                "a cookie's name consists of letters, digits and the like, without blanks, `=` and `;`";
            self.diagnostics.report_with_help(
                Code::InvalidName,
                &name.span,
                "this is not the name of a cookie",
                help,
            );
            return None;
        }
        Some(Source::Cookie(name.value))
    }

    fn source(&mut self, node: &Node) -> Option<Source> {
        let name = self.text(node, "`source`")?;
        match name.value.as_str() {
            "path" => Some(Source::Path),
            "method" => Some(Source::Method),
            "host" => Some(Source::Host),
            other => {
                let help = did_you_mean(other, ["path", "method", "host"]);
                let message = format!("there is no source {other:?}");
                self.diagnostics.report_with_help(Code::WrongForm, &name.span, message, help);
                None
            }
        }
    }

    fn targets(&mut self, node: Node) -> Vec<Target> {
        let mut targets = Vec::new();
        for (key, node) in self.mapping(node, "`targets`") {
            if !self.check_name(&key.text, &key.span, "a target's name") {
                continue;
            }
            let endpoints = if node.is_null() { Vec::new() } else { self.endpoints(node) };
            targets.push(Target { name: key.text, endpoints });
        }
        targets
    }

    fn endpoints(&mut self, node: Node) -> Vec<SocketAddr> {
        let Some(mut fields) = Fields::of(node, "a target", TARGET_FIELDS, self.diagnostics) else {
            return Vec::new();
        };
        let nodes =
            fields.optional("endpoints").map(|node| self.list(node, "`endpoints`")).unwrap_or_default();
        if let Some(first) = nodes.get(MAX_ENDPOINTS) {
            let message = format!("{} endpoints, but at most {MAX_ENDPOINTS} are allowed", nodes.len());
            self.diagnostics.report(Code::TooLarge, &first.span, message);
            return Vec::new();
        }
        let mut endpoints: Vec<SocketAddr> = Vec::with_capacity(nodes.len());
        for node in nodes {
            let Some(endpoint) = self.text(&node, "an endpoint") else { continue };
            match endpoint.value.parse::<SocketAddr>() {
                Ok(address) if endpoints.contains(&address) => {
                    let message = format!("{address} stands twice");
                    self.diagnostics.report(Code::DuplicateName, &endpoint.span, message);
                }
                Ok(address) if address.port() != 0 => endpoints.push(address),
                _ => {
                    let help = "write an IP address and a port, for example 127.0.0.1:8001 or \"[::1]:8001\"";
                    let message = format!("{:?} is not an endpoint", endpoint.value);
                    self.diagnostics.report_with_help(Code::InvalidEndpoint, &endpoint.span, message, help);
                }
            }
        }
        endpoints
    }

    fn rules(&mut self, node: Node) -> Vec<Rule> {
        let mut names = HashSet::new();
        let mut rules = Vec::new();
        for node in self.list(node, "`rules`") {
            if let Some(rule) = self.rule(node, &mut names) {
                rules.push(rule);
            }
        }
        rules
    }

    fn rule(&mut self, node: Node, names: &mut HashSet<String>) -> Option<Rule> {
        let mut fields = Fields::of(node, "a rule", RULE_FIELDS, self.diagnostics)?;
        let name =
            fields.required("name", self.diagnostics).and_then(|node| self.name(&node, "a rule's name"));
        if let Some(name) = &name
            && !names.insert(name.value.clone())
        {
            let message = format!("there is a rule `{}` already", name.value);
            self.diagnostics.report_with_help(
                Code::DuplicateName,
                &name.span,
                message,
                "give each rule its own name",
            );
        }
        let condition = fields.optional("condition").and_then(|node| self.condition(&node));
        let share = match fields.optional("weight") {
            Some(node) => self.weight(&node),
            None => Some(BUCKETS),
        };
        let target =
            fields.required("target", self.diagnostics).and_then(|node| self.name(&node, "a target's name"));
        let seed = fields.optional("seed").and_then(|node| self.seed(&node));
        let span = name.as_ref().map_or(0..0, |name| name.span.clone());
        // A rule with a problem stays, so that the rest of it is checked too; nothing runs it.
        Some(Rule {
            span,
            name: name.map(|name| name.value).unwrap_or_default(),
            condition,
            share: share.unwrap_or(0),
            target,
            seed,
        })
    }

    fn condition(&mut self, node: &Node) -> Option<Expr> {
        let condition = self.text(node, "`condition`")?;
        let length = condition.value.len();
        if length > MAX_CONDITION_BYTES {
            let place = condition.span.start..condition.span.start;
            let message =
                format!("the condition has {length} bytes, more than the {MAX_CONDITION_BYTES} allowed");
            self.diagnostics.report_with_help(Code::TooLarge, &place, message, "split it into several rules");
            return None;
        }
        let map = SourceMap::new(self.text, &condition.span, &condition.value);
        parse(&condition.value, &map, &mut self.next_id, self.diagnostics)
    }

    fn weight(&mut self, node: &Node) -> Option<u32> {
        let text = self.text(node, "`weight`")?;
        let number = text.value.parse::<f64>().ok();
        let share = number.and_then(share);
        if share.is_none() {
            let message = format!("the weight {} is not a number from 0 to 1", text.value);
            let help = match text.value.strip_suffix('%').and_then(|n| n.trim().parse::<f64>().ok()) {
                Some(percent) => format!("write {}", percent / 100.0),
                None => "0.1 means 10 % of the matching units".into(),
            };
            self.diagnostics.report_with_help(Code::WeightOutOfRange, &text.span, message, help);
        }
        share
    }

    fn seed(&mut self, node: &Node) -> Option<String> {
        let seed = self.text(node, "`seed`")?;
        if seed.value.is_empty() || seed.value.len() > MAX_SEED_BYTES {
            let message = format!("a seed has 1 to {MAX_SEED_BYTES} bytes");
            self.diagnostics.report(Code::WrongForm, &seed.span, message);
            return None;
        }
        Some(seed.value)
    }
}
