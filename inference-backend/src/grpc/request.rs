//! An inference request of the gRPC protocol.

use crate::{
    failure::Failure,
    request::{Data, Given, Unchecked},
};
use bytes::Bytes;
use halftone_proto::inference::{
    InferParameter, ModelInferRequest, infer_parameter::ParameterChoice,
    model_infer_request::InferInputTensor,
};
use std::{collections::HashMap, time::Duration};

/// A request's parameters that are for the server; all others are given back.
const FOR_THE_SERVER: [&str; 1] = ["timeout"];

/// What a request says besides its tensors.
#[derive(Debug, Default, PartialEq)]
pub struct Envelope {
    /// To be given back.
    pub id: String,
    /// To be given back.
    pub parameters: HashMap<String, InferParameter>,
    /// Whether the tensors came as raw contents; they go back the same way.
    pub raw: bool,
}

impl Envelope {
    /// What is left of a request when its tensors are read.
    #[must_use]
    pub fn of(mut request: ModelInferRequest) -> Self {
        request.parameters.retain(|name, _| !FOR_THE_SERVER.contains(&name.as_str()));
        Self { id: request.id, parameters: request.parameters, raw: !request.raw_input_contents.is_empty() }
    }
}

/// Reads a request.
///
/// # Errors
/// What is wrong, for the client: tensors that come in two forms or in none.
pub fn parse(request: &ModelInferRequest) -> Result<Unchecked<'_>, Failure> {
    read(request).map_err(Failure::BadRequest)
}

fn read(request: &ModelInferRequest) -> Result<Unchecked<'_>, String> {
    let (inputs, raw) = (&request.inputs, &request.raw_input_contents);
    if !raw.is_empty() && raw.len() != inputs.len() {
        return Err(format!("there are {} raw_input_contents for {} inputs", raw.len(), inputs.len()));
    }
    let inputs = inputs
        .iter()
        .enumerate()
        .map(|(index, input)| {
            let data = data(input, raw.get(index)).map_err(|e| format!("input {:?}: {e}", input.name))?;
            Ok(Given {
                name: input.name.as_str().into(),
                datatype: input.datatype.as_str().into(),
                shape: input.shape.clone(),
                data,
            })
        })
        .collect::<Result<_, String>>()?;
    let outputs = request
        .outputs
        .iter()
        .map(|output| {
            // To ignore it would answer with something else than was asked for.
            for name in ["classification", "shared_memory_region"] {
                if output.parameters.contains_key(name) {
                    return Err(format!("output {:?}: {name} is not served", output.name));
                }
            }
            Ok(output.name.as_str().into())
        })
        .collect::<Result<_, String>>()?;
    Ok(Unchecked { inputs, outputs, timeout: timeout(&request.parameters)? })
}

fn data<'a>(input: &'a InferInputTensor, raw: Option<&'a Bytes>) -> Result<Data<'a>, &'static str> {
    if input.parameters.contains_key("shared_memory_region") {
        return Err("shared memory is not served; send the data");
    }
    match (raw, &input.contents) {
        (Some(_), Some(_)) => Err("there are both contents and raw_input_contents"),
        (Some(raw), None) => Ok(Data::Binary(raw)),
        (None, Some(contents)) => Ok(Data::Contents(contents)),
        (None, None) => Err("there are neither contents nor raw_input_contents"),
    }
}

/// In microseconds, as Triton's clients send it; 0 is none.
fn timeout(parameters: &HashMap<String, InferParameter>) -> Result<Option<Duration>, String> {
    let Some(parameter) = parameters.get("timeout") else { return Ok(None) };
    let micros = match parameter.parameter_choice {
        Some(ParameterChoice::Int64Param(micros)) => u64::try_from(micros).ok(),
        Some(ParameterChoice::Uint64Param(micros)) => Some(micros),
        _ => None,
    };
    let micros = micros.ok_or("the parameter timeout is not a number of microseconds")?;
    Ok(Some(Duration::from_micros(micros)).filter(|timeout| !timeout.is_zero()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use halftone_proto::inference::{InferTensorContents, model_infer_request::InferRequestedOutputTensor};

    fn input(contents: bool) -> InferInputTensor {
        let contents = contents.then(InferTensorContents::default);
        InferInputTensor { name: "x".into(), contents, ..InferInputTensor::default() }
    }

    fn parameter(choice: ParameterChoice) -> InferParameter {
        InferParameter { parameter_choice: Some(choice) }
    }

    #[test]
    fn data_comes_in_one_form() {
        let request = |contents: &[bool], raw: usize| ModelInferRequest {
            inputs: contents.iter().map(|&contents| input(contents)).collect(),
            raw_input_contents: vec![Bytes::from_static(&[1]); raw],
            ..ModelInferRequest::default()
        };
        assert!(matches!(read(&request(&[false], 1)).unwrap().inputs[0].data, Data::Binary(&[1])));
        assert!(matches!(read(&request(&[true], 0)).unwrap().inputs[0].data, Data::Contents(_)));
        for (contents, raw, problem) in [
            (&[true][..], 1, r#"input "x": there are both contents and raw_input_contents"#),
            (&[false], 0, r#"input "x": there are neither contents nor raw_input_contents"#),
            (&[false], 2, "there are 2 raw_input_contents for 1 inputs"),
            (&[false, false], 1, "there are 1 raw_input_contents for 2 inputs"),
        ] {
            assert_eq!(read(&request(contents, raw)).unwrap_err(), problem);
        }
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let name =
            || ("shared_memory_region".to_owned(), parameter(ParameterChoice::StringParam("r".into())));
        let mut request = ModelInferRequest { inputs: vec![input(true)], ..ModelInferRequest::default() };
        request.inputs[0].parameters.extend([name()]);
        assert_eq!(read(&request).unwrap_err(), r#"input "x": shared memory is not served; send the data"#);
        request.inputs[0].parameters.clear();
        request.outputs =
            vec![InferRequestedOutputTensor { name: "y".into(), parameters: HashMap::from([name()]) }];
        assert_eq!(read(&request).unwrap_err(), r#"output "y": shared_memory_region is not served"#);
    }

    #[test]
    fn parameters_come_back_but_for_those_to_the_server() {
        let mine = parameter(ParameterChoice::DoubleParam(0.5));
        let request = ModelInferRequest {
            id: "7".into(),
            parameters: HashMap::from([
                ("timeout".into(), parameter(ParameterChoice::Int64Param(5))),
                ("mine".into(), mine.clone()),
            ]),
            ..ModelInferRequest::default()
        };
        assert_eq!(read(&request).unwrap().timeout, Some(Duration::from_micros(5)));
        let envelope = Envelope::of(request);
        assert_eq!((envelope.id.as_str(), envelope.raw), ("7", false));
        assert_eq!(envelope.parameters, HashMap::from([("mine".into(), mine)]));
        for bad in [ParameterChoice::Int64Param(-1), ParameterChoice::StringParam("1".into())] {
            let parameters = HashMap::from([("timeout".into(), parameter(bad))]);
            let problem =
                read(&ModelInferRequest { parameters, ..ModelInferRequest::default() }).unwrap_err();
            assert_eq!(problem, "the parameter timeout is not a number of microseconds");
        }
    }
}
