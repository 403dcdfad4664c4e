//! The fields of a ruleset: what the reader accepts and what the JSON Schema says, from one table.

use crate::target::{Protocol, RetryOn};
use halftone_rules::{
    Type,
    limits::{MAX_NAME_BYTES, MAX_SEED_BYTES},
};
use serde_json::{Map, Value, json};

/// A mapping with fixed fields.
#[derive(Debug)]
pub(crate) struct Shape {
    /// What the mapping is, for messages: "a rule".
    pub(crate) what: &'static str,
    pub(crate) fields: &'static [Field],
    /// Of these fields exactly one is written.
    one_of: &'static [&'static str],
}

/// A field of a mapping.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    required: bool,
    form: Form,
    about: &'static str,
}

/// What a field's value looks like.
#[derive(Debug)]
enum Form {
    /// A name of a ruleset, a rule, a target and the like.
    Name,
    Text,
    Seed,
    /// A number from 0 to 1.
    Share,
    /// A number above 0.
    Number,
    /// A whole number.
    Count,
    /// `1m30s`
    Duration,
    /// RFC 3339.
    Time,
    Bool,
    /// A text, a number or a bool.
    Scalar,
    /// One of these words.
    Word(fn() -> Vec<&'static str>),
    Object(&'static Shape),
    List(&'static Form),
    /// A list that is not empty.
    Some(&'static Form),
    /// Two of the same.
    Pair(&'static Form),
    /// Names to values; a value may be left out where the second says so.
    Names(&'static Form, bool),
    Either(&'static Form, &'static Form),
}

macro_rules! shape {
    ($(#[doc = $doc:literal])* $name:ident = $what:literal $(one of [$($one:literal),+])? { $( $field:literal $( $required:ident )?: $form:expr, $about:literal; )+ }) => {
        $(#[doc = $doc])*
        pub(crate) static $name: Shape = Shape {
            what: $what,
            fields: &[$( Field { name: $field, required: shape!(@required $($required)?), form: $form, about: $about }, )+],
            one_of: &[$( $($one),+ )?],
        };
    };
    (@required required) => { true };
    (@required) => { false };
}

fn versions() -> Vec<&'static str> {
    vec!["v1"]
}

/// The types that attributes can have.
pub(crate) fn attribute_types() -> Vec<&'static str> {
    let readable = |ty: &&Type| !matches!(ty, Type::Timestamp | Type::Duration);
    Type::ALL.iter().filter(readable).map(|ty| ty.name()).collect()
}

/// The values of a cookie's `same_site`.
pub(crate) fn same_sites() -> Vec<&'static str> {
    vec!["strict", "lax", "none"]
}

/// What the field `source` of an attribute names.
pub(crate) fn sources() -> Vec<&'static str> {
    vec!["path", "method", "host", "client_address"]
}

shape! {
    RULESET = "a ruleset" {
        "version" required: Form::Word(versions), "Version of the language.";
        "name": Form::Name, "The name that the ruleset is uploaded under.";
        "match": Form::Object(&MATCH), "Which requests the ruleset governs; all when left out.";
        "unit": Form::Text, "The attribute that is randomised; `user.id` when left out.";
        "unit_cookie": Form::Object(&UNIT_COOKIE), "Gives requests without a unit a random one that the client keeps in a cookie.";
        "attributes": Form::Names(&Form::Object(&ATTRIBUTE), false), "What conditions read, by the name they use.";
        "targets": Form::Names(&Form::Object(&TARGET), true), "Where the targets are. Left out: a target exists by being named.";
        "default": Form::Name, "The target of requests that no rule takes; `default` when left out.";
        "holdout": Form::Share, "The share of the units that take no rule and no experiment.";
        "layers": Form::Names(&Form::Object(&LAYER), true), "Bucket spaces that rules and experiments share: a unit is in at most one of those in a layer.";
        "rules" required: Form::List(&Form::Object(&RULE)), "In order; the first that takes the request wins.";
        "experiments": Form::List(&Form::Object(&EXPERIMENT)), "Arms that are reported to the backend and do not route.";
        "overrides": Form::List(&Form::Object(&OVERRIDE)), "What units get whatever the rules say.";
    }
}

shape! {
    MATCH = "`match`" {
        "hosts": Form::Some(&Form::Text), "Host names without port; `*.example.com` takes every name below.";
        "path_prefixes": Form::Some(&Form::Text), "Path prefixes, matched by whole segments.";
        "node_clusters": Form::Some(&Form::Text), "The clusters of proxies that the ruleset is for; all when left out.";
    }
}

shape! {
    UNIT_COOKIE = "`unit_cookie`" {
        "name": Form::Text, "The cookie's name; `halftone-unit` when left out.";
        "max_age": Form::Duration, "How long the client keeps it; `8760h`, a year, when left out, and `0`: until its session ends.";
        "same_site": Form::Word(same_sites), "Which requests from other sites carry it; `lax` when left out.";
        "secure": Form::Bool, "Whether only encrypted connections carry it; `true` when left out.";
    }
}

shape! {
    ATTRIBUTE = "an attribute" one of ["header", "cookie", "query", "source", "property", "constant"] {
        "type": Form::Word(attribute_types), "The type that its bytes are read as; `string` when left out.";
        "header": Form::Text, "A header of the request.";
        "cookie": Form::Text, "A cookie of the request.";
        "query": Form::Text, "A parameter of the query, as it stands there.";
        "source": Form::Word(sources), "Another part of the request.";
        "property": Form::Either(&Form::Text, &Form::List(&Form::Text)), "A property of the proxy, by the parts of its name: a JWT's claim, filter state, the connection's SNI.";
        "constant": Form::Scalar, "The same value for every request.";
    }
}

/// What the field `protocol` of a target says.
pub(crate) fn protocols() -> Vec<&'static str> {
    Protocol::ALL.into_iter().map(Protocol::word).collect()
}

/// What the field `on` of retries lists, besides status codes.
pub(crate) fn retry_words() -> Vec<&'static str> {
    RetryOn::WORDS.into_iter().filter_map(RetryOn::word).collect()
}

shape! {
    TARGET = "a target" {
        "endpoints": Form::List(&Form::Text), "IP addresses with ports.";
        "protocol": Form::Word(protocols), "What the endpoints speak; `http1` when left out.";
        "timeout": Form::Duration, "How long a request may take, retries included: 0s is without limit, `15s` when left out.";
        "retries": Form::Object(&RETRIES), "Which requests are sent once more; what cannot have reached a backend when left out.";
        "health_check": Form::Object(&HEALTH_CHECK), "How endpoints are asked whether they are well; not at all when left out.";
        "outlier_detection": Form::Object(&OUTLIER_DETECTION), "Which endpoints are left out for a while; those that cannot be reached when left out.";
        "limits": Form::Object(&LIMITS), "How much each proxy sends at the same time; what is beyond gets 503 at once.";
    }
}

shape! {
    RETRIES = "`retries`" {
        "attempts": Form::Count, "How often at most a request is sent once more; 4 when left out, 0 is never.";
        "on": Form::Some(&Form::Either(&Form::Word(retry_words), &Form::Count)), "After what: words of Envoy's, and status codes. What cannot have reached a backend when left out.";
        "per_try_timeout": Form::Duration, "How long each try may take; `timeout` alone when left out.";
    }
}

shape! {
    HEALTH_CHECK = "`health_check`" one of ["path", "grpc"] {
        "path": Form::Text, "The path of a GET; any 2xx is well.";
        "grpc": Form::Text, "The service that gRPC's health service is asked about; \"\" is the whole server.";
        "interval": Form::Duration, "How long after an answer the next question comes; `5s` when left out.";
        "timeout": Form::Duration, "How long an answer may take; `1s` when left out.";
        "healthy_after": Form::Count, "How many good answers in a row bring an endpoint back; 2 when left out.";
        "unhealthy_after": Form::Count, "How many bad answers in a row take an endpoint out; 3 when left out.";
    }
}

shape! {
    OUTLIER_DETECTION = "`outlier_detection`" {
        "consecutive_5xx": Form::Count, "After how many answers with a 5xx in a row; never when left out.";
        "base_ejection": Form::Duration, "For how long, times how often; `2s` when left out.";
        "max_ejected": Form::Share, "The share of the endpoints that may be left out; 1 when left out.";
    }
}

shape! {
    LIMITS = "`limits`" {
        "connections": Form::Count, "Connections.";
        "pending": Form::Count, "Requests that wait for a connection.";
        "requests": Form::Count, "Requests.";
        "per_endpoint": Form::Object(&CONCURRENCY), "The same for each endpoint there is, so that it follows scaling. Both hold.";
    }
}

shape! {
    CONCURRENCY = "`per_endpoint`" {
        "connections": Form::Count, "Connections.";
        "pending": Form::Count, "Requests that wait for a connection.";
        "requests": Form::Count, "Requests.";
    }
}

shape! {
    LAYER = "a layer" {
        "seed": Form::Seed, "What the buckets are computed under; `<ruleset>/layer <name>` when left out.";
        "holdout": Form::Share, "The share of the units that take nothing in the layer.";
    }
}

shape! {
    RULE = "a rule" one of ["target", "arms"] {
        "name" required: Form::Name, "Unique in the ruleset.";
        "condition": Form::Text, "Which requests the rule matches, in CEL; all when left out.";
        "weight": Form::Share, "The share of the matching units that the rule takes; 1 when left out.";
        "target": Form::Name, "Where the requests go, unless the arms say so.";
        "seed": Form::Seed, "What the buckets are computed under; `<ruleset>/<rule>` when left out.";
        "layer": Form::Name, "The layer whose buckets the rule takes.";
        "range": Form::Pair(&Form::Share), "The part of the layer's buckets that belongs to the rule.";
        "control": Form::Either(&Form::Share, &Form::Object(&CONTROL)), "A share of the units, counted from the other end, that stays as it is and is compared with.";
        "arms": Form::Some(&Form::Object(&ARM)), "What the units are divided among.";
        "start": Form::Time, "From when on the rule is in force.";
        "end": Form::Time, "Until when the rule is in force.";
    }
}

shape! {
    CONTROL = "a control" {
        "weight" required: Form::Share, "The share of the matching units.";
        "target": Form::Name, "Where they go; the ruleset's default when left out.";
    }
}

shape! {
    ARM = "an arm" {
        "name" required: Form::Name, "What the arm is reported as.";
        "target" required: Form::Name, "Where its requests go.";
        "split": Form::Number, "Its part in relation to the other arms; 1 when left out.";
    }
}

shape! {
    EXPERIMENT = "an experiment" {
        "name" required: Form::Name, "Unique among rules and experiments.";
        "condition": Form::Text, "Which requests take part, in CEL; all when left out.";
        "weight": Form::Share, "The share of the matching units that take part; 1 when left out.";
        "arms" required: Form::Some(&Form::Object(&EXPERIMENT_ARM)), "What the units are divided among.";
        "seed": Form::Seed, "What the buckets are computed under; `<ruleset>/<experiment>` when left out.";
        "layer": Form::Name, "The layer whose buckets the experiment takes.";
        "range": Form::Pair(&Form::Share), "The part of the layer's buckets that belongs to the experiment.";
        "start": Form::Time, "From when on the experiment runs.";
        "end": Form::Time, "Until when the experiment runs.";
    }
}

shape! {
    EXPERIMENT_ARM = "an arm" {
        "name" required: Form::Name, "What the arm is reported as.";
        "split": Form::Number, "Its part in relation to the other arms; 1 when left out.";
    }
}

shape! {
    OVERRIDE = "an override" one of ["target", "rule", "experiment"] {
        "units" required: Form::Some(&Form::Scalar), "The units.";
        "target": Form::Name, "The target that they get.";
        "rule": Form::Name, "The rule that they get, whether it would match or not.";
        "experiment": Form::Name, "The experiment that they take part in.";
        "arm": Form::Name, "The arm of the rule or the experiment.";
    }
}

impl Shape {
    /// The names of the fields.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.fields.iter().map(|field| field.name)
    }

    fn schema(&self) -> Value {
        let mut properties = Map::new();
        for field in self.fields {
            let mut schema = field.form.schema();
            if let Value::Object(schema) = &mut schema {
                schema.insert("description".into(), field.about.into());
            }
            properties.insert(field.name.into(), schema);
        }
        let required: Vec<&str> =
            self.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
        let mut schema = json!({ "type": "object", "additionalProperties": false, "properties": properties });
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        if !self.one_of.is_empty() {
            schema["oneOf"] = self.one_of.iter().map(|name| json!({ "required": [name] })).collect();
        }
        schema
    }
}

/// A number above 0 or 0 in quotes.
const NUMBER: &str = "^[+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$";

/// Numbers with their units; 0 needs none.
const DURATION: &str = "^(0|([0-9]*[.]?[0-9]+(h|m|s|ms|us|ns))+)$";

impl Form {
    fn schema(&self) -> Value {
        match self {
            Self::Name => name_schema(),
            // Without quotes a text may look like something else: `condition: true`.
            Self::Text | Self::Scalar => json!({ "type": ["string", "number", "boolean"] }),
            Self::Seed => {
                json!({ "type": ["string", "number", "boolean"], "minLength": 1, "maxLength": MAX_SEED_BYTES })
            }
            // Templates put numbers into quotes.
            Self::Share => {
                json!({ "type": ["number", "string"], "minimum": 0, "maximum": 1, "pattern": NUMBER })
            }
            Self::Number => json!({ "type": ["number", "string"], "exclusiveMinimum": 0, "pattern": NUMBER }),
            Self::Count => json!({ "type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9]+$" }),
            Self::Duration => {
                json!({ "type": ["string", "integer"], "minimum": 0, "maximum": 0, "pattern": DURATION })
            }
            Self::Time => json!({ "type": "string", "format": "date-time" }),
            Self::Bool => json!({ "enum": [true, false] }),
            Self::Word(words) => json!({ "enum": words() }),
            Self::Object(shape) => shape.schema(),
            Self::List(item) => json!({ "type": "array", "items": item.schema() }),
            Self::Some(item) => json!({ "type": "array", "items": item.schema(), "minItems": 1 }),
            Self::Pair(item) => {
                json!({ "type": "array", "items": item.schema(), "minItems": 2, "maxItems": 2 })
            }
            Self::Names(value, optional) => {
                let mut value = value.schema();
                if *optional {
                    value = json!({ "anyOf": [value, { "type": "null" }] });
                }
                json!({ "type": "object", "additionalProperties": value })
            }
            Self::Either(a, b) => json!({ "anyOf": [a.schema(), b.schema()] }),
        }
    }
}

fn name_schema() -> Value {
    // A name may look like a number: v1, but also 1.
    json!({ "type": ["string", "number", "boolean"], "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$", "maxLength": MAX_NAME_BYTES })
}

/// The JSON Schema (draft 2020-12) of a ruleset, for editors and other tools.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = RULESET.schema();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "Halftone ruleset".into();
    schema["description"] =
        "Ordered rules that decide, per request, which target serves it. docs/language.md describes them."
            .into();
    schema
}
