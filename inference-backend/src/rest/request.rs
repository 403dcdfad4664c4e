//! An inference request of the REST protocol: JSON, which binary tensors may follow.

use crate::{
    failure::Failure,
    request::{Data, Given, Unchecked},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::BTreeMap, time::Duration};

/// A request's parameters that are for the server; all others are given back.
const FOR_THE_SERVER: [&str; 2] = ["binary_data_output", "timeout"];

/// What a request says besides its tensors.
#[derive(Debug, Default, PartialEq)]
pub struct Envelope<'a> {
    /// To be given back.
    pub id: Option<Cow<'a, str>>,
    /// To be given back.
    pub parameters: BTreeMap<Cow<'a, str>, Scalar<'a>>,
    /// Whether each output asked for is to be in binary.
    pub binary: Vec<bool>,
    /// The same for outputs that were not asked for by name.
    pub binary_by_default: bool,
}

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Scalar<'a> {
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Unsigned(u64),
    /// A negative whole number.
    Signed(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

impl Envelope<'_> {
    /// The same, independent of the request's body.
    #[must_use]
    pub fn into_owned(self) -> Envelope<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        let scalar = |scalar: Scalar<'_>| match scalar {
            Scalar::Bool(value) => Scalar::Bool(value),
            Scalar::Unsigned(value) => Scalar::Unsigned(value),
            Scalar::Signed(value) => Scalar::Signed(value),
            Scalar::Float(value) => Scalar::Float(value),
            Scalar::Text(text) => Scalar::Text(owned(text)),
        };
        Envelope {
            id: self.id.map(owned),
            parameters: self
                .parameters
                .into_iter()
                .map(|(name, value)| (owned(name), scalar(value)))
                .collect(),
            binary: self.binary,
            binary_by_default: self.binary_by_default,
        }
    }
}

type Parameters<'a> = BTreeMap<Cow<'a, str>, Scalar<'a>>;

/// The protocol's object, as it comes. What else a client adds is ignored.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    parameters: Option<Parameters<'a>>,
    #[serde(borrow)]
    inputs: Vec<WireInput<'a>>,
    #[serde(borrow)]
    outputs: Option<Vec<WireOutput<'a>>>,
}

#[derive(Deserialize)]
struct WireInput<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    shape: Vec<i64>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    #[serde(borrow)]
    parameters: Option<Parameters<'a>>,
    // Raw: how to read it depends on the datatype, which may come after it.
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WireOutput<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    parameters: Option<Parameters<'a>>,
}

/// Reads a request. `json` is the length of its JSON when binary tensors follow.
///
/// # Errors
/// What is wrong, for the client: where the JSON is malformed, or how the binary tensors differ from what it says.
pub fn parse(body: &[u8], json: Option<usize>) -> Result<(Unchecked<'_>, Envelope<'_>), Failure> {
    read(body, json).map_err(Failure::BadRequest)
}

fn read(body: &[u8], json: Option<usize>) -> Result<(Unchecked<'_>, Envelope<'_>), String> {
    let (json, mut binary) = body.split_at_checked(json.unwrap_or(body.len())).ok_or_else(|| {
        format!("the body has {} bytes, less than Inference-Header-Content-Length says", body.len())
    })?;
    let wire: Wire<'_> = serde_json::from_slice(json).map_err(|e| format!("malformed request: {e}"))?;
    let mut parameters = wire.parameters.unwrap_or_default();
    let binary_by_default = flag(&parameters, "binary_data_output")?.unwrap_or(false);
    let timeout = timeout(&parameters)?;
    parameters.retain(|name, _| !FOR_THE_SERVER.contains(&name.as_ref()));

    let inputs =
        wire.inputs.into_iter().map(|input| input.given(&mut binary)).collect::<Result<_, String>>()?;
    if !binary.is_empty() {
        return Err(format!("{} bytes follow those that binary_data_size of the inputs says", binary.len()));
    }
    let outputs = wire.outputs.unwrap_or_default();
    let mut envelope = Envelope { id: wire.id, parameters, binary: Vec::new(), binary_by_default };
    let mut names = Vec::with_capacity(outputs.len());
    for output in outputs {
        envelope.binary.push(output.binary()?.unwrap_or(binary_by_default));
        names.push(output.name);
    }
    Ok((Unchecked { inputs, outputs: names, timeout }, envelope))
}

impl<'a> WireInput<'a> {
    /// Takes its bytes, when it has any, from those that are left.
    fn given(self, binary: &mut &'a [u8]) -> Result<Given<'a>, String> {
        let problem = |problem: &str| format!("input {:?}: {problem}", self.name);
        let size = match self.parameters.as_ref().and_then(|p| p.get("binary_data_size")) {
            None => None,
            Some(Scalar::Unsigned(size)) => Some(usize::try_from(*size).unwrap_or(usize::MAX)),
            Some(_) => return Err(problem("binary_data_size is not a number of bytes")),
        };
        let data = match (self.data, size) {
            (Some(data), None) => Data::Json(data),
            (None, Some(size)) => {
                let (bytes, rest) = binary.split_at_checked(size).ok_or_else(|| {
                    problem(&format!("binary_data_size is {size}, but {} bytes are left", binary.len()))
                })?;
                *binary = rest;
                Data::Binary(bytes)
            }
            (Some(_), Some(_)) => return Err(problem("there are both data and binary_data_size")),
            (None, None) => return Err(problem("there is neither data nor binary_data_size")),
        };
        Ok(Given { name: self.name, datatype: self.datatype, shape: self.shape, data })
    }
}

impl WireOutput<'_> {
    fn binary(&self) -> Result<Option<bool>, String> {
        let Some(parameters) = &self.parameters else { return Ok(None) };
        // To ignore it would answer with something else than was asked for.
        if parameters.get("classification").is_some_and(|count| *count != Scalar::Unsigned(0)) {
            return Err(format!("output {:?}: classification is not served", self.name));
        }
        flag(parameters, "binary_data").map_err(|problem| format!("output {:?}: {problem}", self.name))
    }
}

fn flag(parameters: &Parameters<'_>, name: &str) -> Result<Option<bool>, String> {
    match parameters.get(name) {
        None => Ok(None),
        Some(Scalar::Bool(flag)) => Ok(Some(*flag)),
        Some(_) => Err(format!("the parameter {name} is not true or false")),
    }
}

/// In microseconds, as Triton's clients send it; 0 is none.
fn timeout(parameters: &Parameters<'_>) -> Result<Option<Duration>, String> {
    match parameters.get("timeout") {
        None | Some(Scalar::Unsigned(0)) => Ok(None),
        Some(Scalar::Unsigned(micros)) => Ok(Some(Duration::from_micros(*micros))),
        Some(_) => Err("the parameter timeout is not a number of microseconds".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: &str = r#"{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}"#;

    fn error(body: &[u8], json: Option<usize>) -> String {
        read(body, json).unwrap_err()
    }

    #[test]
    fn takes_keys_in_any_order() {
        let body = format!(
            r#"{{"parameters":{{"p":1,"q":-2,"r":"s","t":1.5,"u":true,"timeout":7}},"more":[{{}}],
                "outputs":[{{"name":"b","parameters":{{"binary_data":true}}}},{{"name":"a"}}],
                "inputs":[{{"data":[1,2],"parameters":{{}},"datatype":"FP32","shape":[1,2],"name":"\u0078"}},{INPUT}],
                "id":"q\u00e9"}}"#
        );
        let (request, envelope) = parse(body.as_bytes(), None).unwrap();
        assert_eq!(envelope.id.as_deref(), Some("qé"));
        assert_eq!(envelope.binary, [true, false]);
        assert!(!envelope.binary_by_default);
        assert_eq!(
            serde_json::to_string(&envelope.parameters).unwrap(),
            r#"{"p":1,"q":-2,"r":"s","t":1.5,"u":true}"#
        );
        assert_eq!(request.timeout, Some(Duration::from_micros(7)));
        assert_eq!(request.outputs, ["b", "a"]);
        let names: Vec<_> = request.inputs.iter().map(|input| input.name.as_ref()).collect();
        assert_eq!(names, ["x", "x"]);
        assert_eq!(request.inputs[0].shape, [1, 2]);
    }

    #[test]
    fn without_a_choice_asks_for_all_outputs() {
        for outputs in ["", r#","outputs":[]"#, r#","outputs":null"#] {
            let body =
                format!(r#"{{"inputs":[{INPUT}],"parameters":{{"binary_data_output":true}}{outputs}}}"#);
            let (request, envelope) = parse(body.as_bytes(), None).unwrap();
            assert!(request.outputs.is_empty() && envelope.binary_by_default);
            assert_eq!((envelope.id, envelope.parameters.len()), (None, 0));
        }
    }

    #[test]
    fn says_where_the_json_is_malformed() {
        for (body, place) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{\n\"inputs\": [}", "line 2 column 12"),
            ("[]", "line 1 column"),
            ("{}", "missing field `inputs` at line 1 column 2"),
            (r#"{"inputs":[{"name":"x","shape":[1.5],"datatype":"FP32","data":[]}]}"#, "line 1 column 35"),
            (r#"{"inputs":[]} x"#, "trailing characters at line 1 column 15"),
            (r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1,}]}"#, "line 1 column 64"),
            (r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}"#, "line 1 column 62"),
            (r#"{"inputs":[],"parameters":{"p":[]}}"#, "line 1 column"),
            (r#"{"inputs":[],"inputs":[]}"#, "duplicate field `inputs`"),
        ] {
            let problem = error(body.as_bytes(), None);
            assert!(problem.starts_with("malformed request: ") && problem.contains(place), "{problem}");
        }
        assert!(parse(b"{\"inputs\":[{\"name\":\"\xff\"}]}", None).is_err());
        let deep = format!("{{\"inputs\":{}", "[".repeat(1_000_000));
        assert!(error(deep.as_bytes(), None).starts_with("malformed request: "));
    }

    /// A request of two binary tensors that say these sizes, and bytes after it.
    fn binary(sizes: [&str; 2], bytes: &[u8]) -> (Vec<u8>, usize) {
        let input = |size: &str| {
            format!(
                r#"{{"name":"x","shape":[1],"datatype":"UINT8","parameters":{{"binary_data_size":{size}}}}}"#
            )
        };
        let json = format!(r#"{{"inputs":[{}]}}"#, sizes.map(input).join(","));
        ([json.as_bytes(), bytes].concat(), json.len())
    }

    #[test]
    fn binary_tensors_follow_in_order() {
        let (body, json) = binary(["1", "2"], &[7, 8, 9]);
        let (request, _) = parse(&body, Some(json)).unwrap();
        let data: Vec<&[u8]> = request
            .inputs
            .iter()
            .map(|input| match input.data {
                Data::Binary(data) => data,
                _ => panic!("{input:?}"),
            })
            .collect();
        assert_eq!(data, [&[7][..], &[8, 9]]);
    }

    #[test]
    fn binary_sections_that_do_not_add_up() {
        for (sizes, bytes, problem) in [
            (["1", "2"], &[7, 8][..], r#"input "x": binary_data_size is 2, but 1 bytes are left"#),
            (["1", "1"], &[7, 8, 9], "1 bytes follow those that binary_data_size of the inputs says"),
            (
                ["1", "18446744073709551615"],
                &[7, 8, 9],
                r#"input "x": binary_data_size is 18446744073709551615, but 2 bytes are left"#,
            ),
            (["-1", "1"], &[7], r#"input "x": binary_data_size is not a number of bytes"#),
            (["1.5", "1"], &[7], r#"input "x": binary_data_size is not a number of bytes"#),
        ] {
            let (body, json) = binary(sizes, bytes);
            assert_eq!(error(&body, Some(json)), problem);
        }
        let (body, json) = binary(["1", "1"], &[7, 8]);
        assert_eq!(
            error(&body, Some(usize::MAX)),
            format!("the body has {} bytes, less than Inference-Header-Content-Length says", json + 2)
        );
        assert!(error(&body, Some(json - 1)).starts_with("malformed request: EOF"));
        assert!(error(&body, Some(json + 1)).starts_with("malformed request: "));
        assert!(error(&body, None).starts_with("malformed request: "));
    }

    #[test]
    fn data_comes_in_one_form() {
        let both =
            r#"{"name":"x","shape":[1],"datatype":"UINT8","parameters":{"binary_data_size":0},"data":[1]}"#;
        let none = r#"{"name":"x","shape":[1],"datatype":"UINT8"}"#;
        for (input, problem) in [
            (both, r#"input "x": there are both data and binary_data_size"#),
            (none, r#"input "x": there is neither data nor binary_data_size"#),
        ] {
            assert_eq!(error(format!(r#"{{"inputs":[{input}]}}"#).as_bytes(), None), problem);
        }
    }

    #[test]
    fn parameters_that_mean_something_have_the_right_type() {
        for (rest, problem) in [
            (
                r#""parameters":{"binary_data_output":1}"#,
                "the parameter binary_data_output is not true or false",
            ),
            (r#""parameters":{"timeout":"1"}"#, "the parameter timeout is not a number of microseconds"),
            (
                r#""outputs":[{"name":"a","parameters":{"binary_data":"yes"}}]"#,
                r#"output "a": the parameter binary_data is not true or false"#,
            ),
            (
                r#""outputs":[{"name":"a","parameters":{"classification":3}}]"#,
                r#"output "a": classification is not served"#,
            ),
        ] {
            assert_eq!(error(format!(r#"{{"inputs":[],{rest}}}"#).as_bytes(), None), problem);
        }
    }
}
