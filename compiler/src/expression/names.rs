//! What the names in conditions mean.

use crate::{
    diagnostic::Code,
    suggest::{MAX_CANDIDATES, closest, did_you_mean, is_misspelling},
};
use halftone_rules::{Source, Type, bundle::Constant, headers::PREFIX};
use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

/// An attribute that the ruleset declares.
#[derive(Clone, Debug)]
pub(crate) enum DeclaredAttribute {
    /// Read from the request.
    Read(Source, Type),
    /// The same for every request. Each use of it shares the value.
    Constant(Rc<Constant>),
}

/// What a name stands for.
#[derive(Clone, Debug)]
pub(crate) enum Named {
    /// Something of the request; without a type it is that of its use.
    Attribute(Source, Option<Type>),
    /// A constant.
    Constant(Rc<Constant>),
    /// The time of the request.
    Now,
}

/// An attribute that some condition uses.
#[derive(Debug)]
pub(crate) struct UsedAttribute {
    pub(crate) name: String,
    pub(crate) source: Source,
    /// How often it stands in the ruleset.
    uses: usize,
}

/// The attributes of a ruleset: those declared, and those used so far.
pub(crate) struct Names {
    declared: BTreeMap<String, DeclaredAttribute>,
    used: Vec<UsedAttribute>,
    index: HashMap<String, usize>,
}

/// Why a name means nothing.
pub(crate) struct UnknownName {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) help: String,
}

const REQUEST_FIELDS: [&str; 7] = [
    "request.path",
    "request.method",
    "request.host",
    "request.client_address",
    "request.headers",
    "request.cookies",
    "request.query",
];

/// Words of CEL that are no names, not even behind a dot.
pub(crate) const KEYWORDS: [&str; 4] = ["false", "in", "null", "true"];

/// Words that CEL keeps for later: names do not start with them.
pub(crate) const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The name of the time of the request.
pub(crate) const NOW: &str = "now";

/// The attribute that is a unit by default; without a declaration it is a uint.
const USER_ID: &str = "user.id";

impl Names {
    pub(crate) fn new(declared: BTreeMap<String, DeclaredAttribute>) -> Self {
        Self { declared, used: Vec::new(), index: HashMap::new() }
    }

    /// Used attributes, in the order of their indices.
    pub(crate) fn used(&self) -> &[UsedAttribute] {
        &self.used
    }

    /// How to give a used attribute a type.
    pub(crate) fn declaration(&self, index: usize, ty: &str) -> Option<String> {
        let used = self.used.get(index)?;
        Some(match &used.source {
            _ if is_of_request(&used.name) => return None,
            Source::Header(header) if !self.declared.contains_key(&used.name) => {
                format!("declare `attributes: {{{}: {{header: {header}, type: {ty}}}}}`", used.name)
            }
            _ => format!("declare `{}` with `type: {ty}`", used.name),
        })
    }

    /// What a dotted name stands for.
    pub(crate) fn resolve(&self, path: &[String]) -> Result<Named, UnknownName> {
        let name = path.join(".");
        if let Some(declared) = self.declared.get(&name) {
            return Ok(match declared.clone() {
                DeclaredAttribute::Read(source, ty) => Named::Attribute(source, Some(ty)),
                DeclaredAttribute::Constant(constant) => Named::Constant(constant),
            });
        }
        if name == NOW {
            return Ok(Named::Now);
        }
        let [first, rest @ ..] = path else {
            return Err(UnknownName {
                code: Code::UnknownName,
                message: "a name is missing".into(),
                help: String::new(),
            });
        };
        if first == NOW {
            return Err(part_of_now(&rest.join(".")));
        }
        if first == "request" {
            let source = match name.as_str() {
                "request.path" => Source::Path,
                "request.method" => Source::Method,
                "request.host" => Source::Host,
                "request.client_address" => Source::ClientAddress,
                _ => match rest {
                    [map, key] => match map_entry(&format!("request.{map}"), key) {
                        Some(entry) => entry?,
                        None => return Err(unknown_field(&name)),
                    },
                    _ => return Err(unknown_field(&name)),
                },
            };
            return Ok(Named::Attribute(source, Some(Type::String)));
        }
        if rest.is_empty() {
            let form = "an attribute that is not declared has the form `a.b` and means the header x-a-b";
            let candidates = self.declared.keys().map(String::as_str).chain([USER_ID]);
            let help = match closest(&name, candidates) {
                Some(candidate) => format!("did you mean `{candidate}`?"),
                None if self.declared.is_empty() => form.into(),
                None => {
                    let known: Vec<&str> = self.declared.keys().map(String::as_str).collect();
                    format!("{}; {form}", did_you_mean(&name, known))
                }
            };
            return Err(UnknownName {
                code: Code::UnknownName,
                message: format!("`{name}` is not declared"),
                help,
            });
        }
        // The contract: an undeclared `a.b` is the header `x-a-b`, and `user.id` is an unsigned integer.
        let header = format!("x-{}", name.replace(['.', '_'], "-"));
        let ty = (name == USER_ID).then_some(Type::Uint);
        header_source(&header).map(|source| Named::Attribute(source, ty))
    }

    /// The index of the attribute, which is used from now on.
    pub(crate) fn use_attribute(&mut self, name: String, source: Source) -> usize {
        let index = *self.index.entry(name.clone()).or_insert_with(|| {
            self.used.push(UsedAttribute { name, source, uses: 0 });
            self.used.len() - 1
        });
        self.used[index].uses += 1;
        index
    }

    /// The attribute that a used one is most likely a misspelling of. What is declared is meant; of two that are not,
    /// the one that is used less often is the wrong one, or the later one.
    pub(crate) fn misspelt(&self, index: usize) -> Option<&str> {
        let suspect = self.used.get(index)?;
        if self.declared.contains_key(&suspect.name)
            || suspect.name == USER_ID
            || is_of_request(&suspect.name)
        {
            return None;
        }
        let declared = self.declared.keys().map(String::as_str).chain([USER_ID]);
        let used =
            self.used.iter().enumerate().filter(|(at, other)| {
                !is_of_request(&other.name) && (other.uses, index) > (suspect.uses, *at)
            });
        let used = used.map(|(_, other)| other.name.as_str());
        declared.take(MAX_CANDIDATES).chain(used).find(|other| is_misspelling(&suspect.name, other))
    }
}

/// The entry of a map in the request; `None` when there is no such map.
pub(crate) fn map_entry(map: &str, key: &str) -> Option<Result<Source, UnknownName>> {
    Some(match map {
        "request.headers" => header_source(key),
        "request.cookies" => cookie_source(key),
        "request.query" => query_source(key),
        _ => return None,
    })
}

/// Whether a text has the form of an attribute's name: parts of letters, digits and `_`, joined by dots.
pub(crate) fn is_attribute_name(name: &str) -> bool {
    name.split('.').all(|part| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

/// What to write for a name that is no attribute's: most likely it is a header's.
pub(crate) fn how_to_declare(name: &str) -> String {
    let header = name.to_ascii_lowercase();
    let attribute = header.strip_prefix("x-").unwrap_or(&header).replace('-', ".");
    if !is_token(name) || !is_attribute_name(&attribute) {
        "name an attribute, for example `user.id`; `attributes` says where it comes from".into()
    } else if header.starts_with("x-") && attribute.contains('.') {
        format!("write `{attribute}`, which is the header {header}")
    } else {
        format!("declare `attributes: {{{attribute}: {{header: {header}}}}}` and write `{attribute}`")
    }
}

fn is_map(name: &str) -> bool {
    matches!(name, "request.headers" | "request.cookies" | "request.query")
}

fn is_of_request(name: &str) -> bool {
    name.starts_with("request.")
}

/// `now.hour`: what a point in time is made of is asked for by functions.
fn part_of_now(field: &str) -> UnknownName {
    let functions = [
        ("getFullYear", "year"),
        ("getMonth", "month"),
        ("getDate", "day"),
        ("getDayOfWeek", "weekday"),
        ("getDayOfYear", "yearday"),
        ("getHours", "hour"),
        ("getMinutes", "minute"),
        ("getSeconds", "second"),
        ("getMilliseconds", "millisecond"),
    ];
    let bare = field.to_ascii_lowercase().replace('_', "");
    let bare = bare.strip_prefix("get").unwrap_or(&bare);
    let bare = bare.strip_suffix('s').unwrap_or(bare);
    let found = functions.into_iter().find(|(function, part)| {
        let function = function["get".len()..].to_ascii_lowercase();
        bare == *part || bare == function.trim_end_matches('s')
    });
    let help = match found {
        Some((function, _)) => format!("write `now.{function}()`"),
        None => {
            "`now` is a timestamp: compare it, or write `now.getHours()`, `now.getDayOfWeek()` and the like"
                .into()
        }
    };
    UnknownName { code: Code::UnknownName, message: format!("`now` has no field `{field}`"), help }
}

fn unknown_field(name: &str) -> UnknownName {
    let help = if is_map(name) {
        format!("name an entry: {name}[\"x-tier\"]")
    } else {
        let field = name.strip_prefix("request.").unwrap_or(name);
        let likely = REQUEST_FIELDS.into_iter().find(|known| is_misspelling(name, known));
        let other = match field.to_ascii_lowercase().as_str() {
            "uri" | "url" | "path_info" | "url_path" => Some("request.path"),
            "verb" => Some("request.method"),
            "authority" | "hostname" | "domain" => Some("request.host"),
            "ip" | "address" | "remote_addr" | "remote_address" | "client_ip" | "source_address" => {
                Some("request.client_address")
            }
            "params" | "parameters" | "args" | "query_string" => Some("request.query[\"name\"]"),
            "time" | "timestamp" => Some("now"),
            _ => None,
        };
        let entry = field.split_once('.').filter(|(map, _)| is_map(&format!("request.{map}")));
        match (likely, other, entry) {
            (_, _, Some((map, key))) => format!("write request.{map}[\"{key}\"]"),
            (Some(likely), ..) => format!("did you mean `{likely}`?"),
            (_, Some(other), _) => format!("write `{other}`"),
            _ => format!(
                "a header is request.headers[\"x-{}\"]; known are: {}",
                field.replace(['.', '_'], "-"),
                REQUEST_FIELDS.join(", ")
            ),
        }
    };
    UnknownName { code: Code::UnknownName, message: format!("`{name}` is not an attribute"), help }
}

/// The parameter of the query of a name, when it can be one.
pub(crate) fn query_source(name: &str) -> Result<Source, UnknownName> {
    if !name.is_empty() && !name.contains(['&', '=', '#']) {
        return Ok(Source::Query(name.into()));
    }
    Err(UnknownName {
        code: Code::InvalidName,
        message: format!("{name:?} is not the name of a query parameter"),
        help: "the name is what stands before the `=`, for example `tier` in /v2/models?tier=gold".into(),
    })
}

/// The cookie of a name, when it is one.
pub(crate) fn cookie_source(name: &str) -> Result<Source, UnknownName> {
    if is_token(name) {
        return Ok(Source::Cookie(name.into()));
    }
    Err(UnknownName {
        code: Code::InvalidName,
        message: format!("{name:?} is not the name of a cookie"),
        help: "a cookie's name consists of letters, digits and the like, without blanks, `=` and `;`".into(),
    })
}

/// The header of a name, when it is one and rules may read it.
pub(crate) fn header_source(name: &str) -> Result<Source, UnknownName> {
    let name = name.to_ascii_lowercase();
    if !is_token(&name) {
        return Err(UnknownName {
            code: Code::InvalidName,
            message: format!("{name:?} is not the name of a header"),
            help: "a header's name consists of letters, digits and dashes".into(),
        });
    }
    // The filter removes them from requests, so rules must not read them.
    if name.starts_with(PREFIX) {
        return Err(UnknownName {
            code: Code::ReservedHeader,
            message: format!("the header `{name}` is reserved"),
            help: format!("headers that start with {PREFIX} are set by the filter; clients cannot send them"),
        });
    }
    Ok(Source::Header(name))
}

/// A token of HTTP (RFC 9110, section 5.6.2): what names of headers and cookies are.
fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= halftone_rules::limits::MAX_NAME_BYTES
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
