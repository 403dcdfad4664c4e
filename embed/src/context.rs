//! What a decision depends on, with the names and types that the rules know.

use crate::{HttpRequest, Value, now, value::write};
use halftone_compiler::{Explanation, did_you_mean, explain};
use halftone_rules::{
    Attribute, Decision, Request, Ruleset, Source, Timestamp, VerifiedBundle, limits::MAX_VALUE_BYTES,
};
use std::ops::Range;

/// What one decision depends on, for a ruleset of [`Rules`](crate::Rules).
///
/// An attribute that was [`set`](Self::set) has that value, wherever the rules would look for it in a request;
/// others are looked for in the [`request`](Self::request), if there is one.
#[derive(Clone, Debug)]
pub struct Context<'r> {
    bundle: &'r VerifiedBundle,
    ruleset: &'r Ruleset,
    /// Where the rules look for a value, and where in `text` it is.
    values: Vec<(&'r Source, Range<usize>)>,
    text: Vec<u8>,
    request: HttpRequest,
    now: Option<Timestamp>,
}

/// Why a context cannot be as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// The rules in force have no ruleset of this name.
    #[error("there is no ruleset {name:?}: {help}")]
    UnknownRuleset {
        /// The name.
        name: String,
        /// What was meant perhaps, or what exists.
        help: String,
    },
    /// No ruleset's `match` fits the request.
    #[error("no ruleset governs this request")]
    Ungoverned,
    /// No rule reads an attribute of this name: it is misspelt, or the rules that read it are gone.
    #[error("no rule of {ruleset:?} reads an attribute {name:?}: {help}")]
    UnknownAttribute {
        /// The ruleset.
        ruleset: String,
        /// The attribute's name.
        name: String,
        /// What was meant perhaps, or what exists.
        help: String,
    },
    /// The attribute has another type. The error does not say the value, which may be private.
    #[error("the attribute {name:?} is {expected}, not {given}")]
    WrongType {
        /// The attribute's name.
        name: String,
        /// Its type in the rules.
        expected: &'static str,
        /// What was given, in words.
        given: &'static str,
    },
    /// Conditions do not work on values as long as this.
    #[error("the attribute {name:?} takes at most {MAX_VALUE_BYTES} bytes, not {bytes}")]
    TooLong {
        /// The attribute's name.
        name: String,
        /// Bytes that were given.
        bytes: usize,
    },
}

impl<'r> Context<'r> {
    pub(crate) fn named(bundle: &'r VerifiedBundle, name: &str) -> Result<Self, ContextError> {
        let rulesets = &bundle.bundle().rulesets;
        let found = rulesets.binary_search_by(|ruleset| ruleset.name.as_str().cmp(name));
        let ruleset = found.ok().and_then(|at| rulesets.get(at)).ok_or_else(|| {
            let help = did_you_mean(name, rulesets.iter().map(|ruleset| ruleset.name.as_str()));
            ContextError::UnknownRuleset { name: name.into(), help }
        })?;
        Ok(Self::new(bundle, ruleset))
    }

    pub(crate) fn new(bundle: &'r VerifiedBundle, ruleset: &'r Ruleset) -> Self {
        Self {
            bundle,
            ruleset,
            values: Vec::with_capacity(ruleset.attributes.len()),
            text: Vec::new(),
            request: HttpRequest::new(),
            now: None,
        }
    }

    /// The name of the ruleset that decides.
    #[must_use]
    pub fn ruleset(&self) -> &'r str {
        &self.ruleset.name
    }

    /// Names and types of the attributes that the rules read.
    pub fn attributes(&self) -> impl Iterator<Item = (&'r str, &'static str)> {
        self.ruleset.attributes.iter().map(|attribute| (attribute.name.as_str(), attribute.ty.name()))
    }

    /// Gives an attribute a value; the last one counts.
    ///
    /// # Errors
    /// When no rule reads an attribute of this name, or it has another type; the error says what exists. Whoever
    /// says the same whatever the rules ask presently uses [`set_if_read`](Self::set_if_read).
    pub fn set<'v>(self, name: &str, value: impl Into<Value<'v>>) -> Result<Self, ContextError> {
        match self.attribute_named(name) {
            Some(attribute) => self.put(attribute, value.into()),
            None => Err(ContextError::UnknownAttribute {
                ruleset: self.ruleset.name.clone(),
                name: name.into(),
                help: did_you_mean(name, self.ruleset.attributes.iter().map(|other| other.name.as_str())),
            }),
        }
    }

    /// As [`set`](Self::set), but an attribute that no rule reads is left out. Rules change while the process runs,
    /// and the last rule that reads an attribute may go.
    ///
    /// # Errors
    /// When the attribute has another type.
    pub fn set_if_read<'v>(self, name: &str, value: impl Into<Value<'v>>) -> Result<Self, ContextError> {
        match self.attribute_named(name) {
            Some(attribute) => self.put(attribute, value.into()),
            None => Ok(self),
        }
    }

    /// The request in which attributes are looked for that are not set. It does not change which ruleset decides.
    #[must_use]
    pub fn request(self, request: HttpRequest) -> Self {
        Self { request, ..self }
    }

    /// The time for schedules and for `now` in conditions. The system's time of the decision, if this is not used.
    #[must_use]
    pub fn now(self, now: Timestamp) -> Self {
        Self { now: Some(now), ..self }
    }

    /// Decides. `None` when the ruleset can govern nothing, because another one has the same `match`; bundles that
    /// Halftone made have no such rulesets.
    #[must_use]
    pub fn decide(&self) -> Option<Decision<'r>> {
        let decision = self.bundle.decide(self, self.time(), &mut ())?;
        (decision.ruleset == self.ruleset.name).then_some(decision)
    }

    /// Decides as [`decide`](Self::decide) does and explains it, rule by rule. It takes much longer.
    #[must_use]
    pub fn explain(&self) -> Option<Explanation> {
        let explanation = explain(self.bundle, self, self.time())?;
        (explanation.ruleset == self.ruleset.name).then_some(explanation)
    }

    fn time(&self) -> Timestamp {
        self.now.unwrap_or_else(now)
    }

    fn attribute_named(&self, name: &str) -> Option<&'r Attribute> {
        self.ruleset.attributes.iter().find(|attribute| attribute.name == name)
    }

    fn put(mut self, attribute: &'r Attribute, value: Value<'_>) -> Result<Self, ContextError> {
        let start = self.text.len();
        write(value, attribute.ty, &mut self.text).map_err(|given| ContextError::WrongType {
            name: attribute.name.clone(),
            expected: attribute.ty.name(),
            given,
        })?;
        let bytes = self.text.len() - start;
        if bytes > MAX_VALUE_BYTES {
            return Err(ContextError::TooLong { name: attribute.name.clone(), bytes });
        }
        self.values.retain(|(source, _)| *source != &attribute.source);
        self.values.push((&attribute.source, start..self.text.len()));
        Ok(self)
    }
}

impl Request for Context<'_> {
    /// Only the choice of a ruleset comes here, and it is to choose the one of this context: nothing fits the host
    /// and path of a `match` as closely as they fit themselves, and what is left out of a `match` is left out here,
    /// so that no closer one fits. A wildcard fits itself too, and more closely than any other name does.
    fn header(&self, name: &str) -> Option<&[u8]> {
        let patterns = match name {
            ":authority" => &self.ruleset.scope.hosts,
            ":path" => &self.ruleset.scope.path_prefixes,
            _ => return None,
        };
        patterns.first().map(String::as_bytes)
    }

    fn attribute(&self, attribute: &Attribute) -> Option<&[u8]> {
        let set = self.values.iter().find(|(source, _)| **source == attribute.source);
        match set {
            Some((_, range)) => self.text.get(range.clone()),
            None => self.request.attribute(attribute),
        }
    }
}
