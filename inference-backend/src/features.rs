//! The inputs of a model that the client does not send: they come from what the filter decided about the request
//! ([`attribute`]), or from a [`service`] that knows features. They are made before the request waits for the model, so that
//! a batch has each request's own.

pub mod attribute;
pub mod cache;
pub mod config;
pub mod row;
pub mod service;
pub mod template;

use self::{
    attribute::Attribute,
    config::{FeaturesConfig, InputConfig},
    row::Row,
    service::{Answer, Field, Service},
};
use crate::{
    call::Call,
    datatype::Datatype,
    failure::Failure,
    rejections::Reason,
    signature::{Signature, TensorSpec, names},
};
use halftone_proto::v1::EvaluationContext;
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Seconds after which a client may try again what a service was needed for.
const RETRY_AFTER: u32 = 1;

/// What a model gets besides what the client sends.
#[derive(Debug)]
pub struct Features {
    inputs: Vec<BoundInput>,
    services: Vec<Arc<Service>>,
}

/// An input that is bound.
#[derive(Debug)]
struct BoundInput {
    /// Its place in the signature.
    index: usize,
    name: String,
    overridable: bool,
    from: Origin,
}

#[derive(Debug)]
enum Origin {
    Context {
        attribute: Attribute,
        /// What each value is for the model.
        map: Option<HashMap<String, Arc<[u8]>>>,
        row: Row,
        default: Arc<[u8]>,
    },
    Service {
        /// Its place among the services.
        service: usize,
        /// Its place among the fields of that.
        field: usize,
        fallback: Option<Arc<[u8]>>,
    },
}

/// A row for an input that the client did not send.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The input's place in the signature.
    pub index: usize,
    /// The row, in the protocol's binary form.
    pub row: Arc<[u8]>,
    /// Whether the client may send the input itself.
    pub overridable: bool,
}

impl Features {
    /// What a configuration says, checked against what the model takes. ONNX Runtime must be loaded.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn new(label: &str, config: &FeaturesConfig, signature: &Signature) -> Result<Self, String> {
        let mut fields: BTreeMap<&str, Vec<Field>> =
            config.services.keys().map(|name| (name.as_str(), Vec::new())).collect();
        let mut inputs = Vec::new();
        for (name, input) in &config.inputs {
            let place = signature.inputs.iter().position(|spec| spec.name == *name);
            let (index, spec) =
                place.and_then(|place| Some((place, signature.inputs.get(place)?))).ok_or_else(|| {
                    format!("unknown input {name:?}; the model takes {}", names(&signature.inputs))
                })?;
            let bound = bind(index, spec, input, &mut fields);
            inputs.push(bound.map_err(|problem| format!("input {name:?}: {problem}"))?);
        }
        let services = fields
            .into_iter()
            .filter_map(|(name, fields)| Some((name, config.services.get(name)?, fields)))
            .map(|(name, config, fields)| {
                let service = Service::new(label, name, config, fields);
                service.map(Arc::new).map_err(|problem| format!("service {name:?}: {problem}"))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { inputs, services })
    }

    /// The signature as clients see it: without what is bound.
    #[must_use]
    pub fn offered(&self, signature: &Signature) -> Signature {
        let is_bound = |index: usize| self.inputs.iter().any(|input| input.index == index);
        let inputs = signature.inputs.iter().enumerate().filter(|(index, _)| !is_bound(*index));
        Signature {
            inputs: inputs.map(|(_, spec)| spec.clone()).collect(),
            outputs: signature.outputs.clone(),
        }
    }

    /// What is bound for a request.
    ///
    /// # Errors
    /// When a service is needed that does not have it, and there is nothing to fall back to.
    pub async fn bind(&self, call: &Call) -> Result<Vec<Bound>, Failure> {
        let request = call.context.as_deref();
        let context = request.and_then(|request| request.evaluation.as_ref());
        // All are asked before the first is waited for.
        let asked: Vec<_> =
            self.services.iter().map(|service| (service, service.ask(context, call))).collect();
        let mut answers = Vec::with_capacity(asked.len());
        for (service, asked) in asked {
            answers.push(service.wait(asked, call.deadline).await);
        }
        if let (Some(request), Some(version)) = (request, self.version(&answers, context)) {
            request.set_feature_version(version);
        }
        self.inputs.iter().map(|input| input.bound(context, &self.services, &answers)).collect()
    }

    /// That of the service or, when there are several, of each; else what the filter says.
    fn version(
        &self,
        answers: &[Result<Arc<Answer>, String>],
        context: Option<&EvaluationContext>,
    ) -> Option<String> {
        let versions = self.services.iter().zip(answers).filter_map(|(service, answer)| {
            let version = answer.as_ref().ok()?.version.as_deref()?;
            Some(match self.services.len() {
                1 => version.to_owned(),
                _ => format!("{}={version}", service.name()),
            })
        });
        let versions = versions.collect::<Vec<_>>().join(",");
        Some(versions).filter(|versions| !versions.is_empty()).or_else(|| context?.feature_version.clone())
    }
}

/// An input that is bound as the configuration says. What it needs of a service is added to that one's fields.
fn bind(
    index: usize,
    spec: &TensorSpec,
    config: &InputConfig,
    fields: &mut BTreeMap<&str, Vec<Field>>,
) -> Result<BoundInput, String> {
    let row = Row::of(spec)?;
    let encode = |what: &str, value: &Value| {
        row.encode(value).map(Arc::from).map_err(|problem| format!("{what}: {problem}"))
    };
    let (from, overridable) = match config {
        InputConfig::Context { attribute: name, map, default, overridable } => {
            let attribute = Attribute::named(name)?;
            if map.is_none() && row.elements() != 1 {
                return Err(format!(
                    "it has {} elements in a row, {name:?} is one; give a map",
                    row.elements()
                ));
            }
            if map.is_none() && !attribute.is_number() && row.datatype() != Datatype::String {
                return Err(format!("it is {}, {name:?} is a text; give a map", row.datatype()));
            }
            let entry =
                |(key, value): (&String, &Value)| Ok((key.clone(), encode(&format!("map {key:?}"), value)?));
            let map = map.as_ref().map(|map| map.iter().map(entry).collect::<Result<_, String>>());
            let (map, default) = (map.transpose()?, encode("default", default)?);
            (Origin::Context { attribute, map, row, default }, *overridable)
        }
        InputConfig::Service { service, field, fallback, overridable } => {
            config::is_pointer("field", field)?;
            let place = fields.keys().position(|name| name == service);
            let (place, fields) = place
                .zip(fields.get_mut(service.as_str()))
                .ok_or_else(|| format!("there is no service {service:?} among the services"))?;
            let fallback = fallback.as_ref().map(|value| encode("fallback", value)).transpose()?;
            fields.push(Field { pointer: field.clone(), row });
            (Origin::Service { service: place, field: fields.len() - 1, fallback }, *overridable)
        }
    };
    Ok(BoundInput { index, name: spec.name.clone(), overridable, from })
}

impl BoundInput {
    fn bound(
        &self,
        context: Option<&EvaluationContext>,
        services: &[Arc<Service>],
        answers: &[Result<Arc<Answer>, String>],
    ) -> Result<Bound, Failure> {
        let row = match &self.from {
            Origin::Context { attribute, map, row, default } => {
                let own = context.and_then(|context| match map {
                    Some(map) => map.get(&attribute.text(context)?).cloned(),
                    None if row.datatype() == Datatype::String => {
                        row.encode(&attribute.text(context)?.into()).ok().map(Arc::from)
                    }
                    None => row.encode(&attribute.value(context)?).ok().map(Arc::from),
                });
                own.unwrap_or_else(|| Arc::clone(default))
            }
            Origin::Service { service, field, fallback } => {
                let own = match answers.get(*service) {
                    Some(Ok(answer)) => answer.rows.get(*field).cloned(),
                    Some(Err(problem)) => Some(Err(problem.clone())),
                    None => None,
                };
                let own = own.unwrap_or_else(|| Err("it was not asked".into()));
                own.or_else(|problem| {
                    let service = services.get(*service).map_or("", |service| service.name());
                    tracing::debug!(input = self.name, service, problem, "no feature");
                    let input = &self.name;
                    fallback.clone().ok_or_else(|| Failure::Unavailable {
                        problem: format!("input {input:?} comes from the service {service:?}: {problem}"),
                        reason: Reason::FeatureUnavailable,
                        retry_after: RETRY_AFTER,
                    })
                })?
            }
        };
        Ok(Bound { index: self.index, row, overridable: self.overridable })
    }
}
