//! An inference request: JSON, checked against the model's signature.

use crate::{
    datatype::Datatype,
    signature::{Signature, TensorSpec, names},
};
use ort::value::DynValue;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A request that fits the model, except for what may yet be wrong with the elements of its tensors.
#[derive(Debug)]
pub struct InferRequest<'a> {
    /// To be given back.
    pub id: Option<Cow<'a, str>>,
    /// One per input of the model, in its order.
    pub inputs: Vec<Input<'a>>,
    /// The outputs to give, in the order asked for; all of them if none was asked for.
    pub outputs: Vec<&'a TensorSpec>,
}

/// A tensor of a request, its elements not yet read.
#[derive(Debug)]
pub struct Input<'a> {
    /// The model's input it is for.
    pub spec: &'a TensorSpec,
    /// Its shape, which fits the model's.
    pub shape: Vec<usize>,
    data: &'a RawValue,
}

/// The protocol's object, as it comes. Parameters and whatever else a client adds are ignored.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    inputs: Vec<WireInput<'a>>,
    #[serde(borrow, default)]
    outputs: Vec<WireOutput<'a>>,
}

#[derive(Deserialize)]
struct WireInput<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    shape: Vec<i64>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    // Raw: how to read it depends on the datatype, which may come after it.
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct WireOutput<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

impl<'a> InferRequest<'a> {
    /// Reads and checks a request's body.
    ///
    /// # Errors
    /// What is wrong, for the client: where the JSON is malformed, or which tensor does not fit the model.
    pub fn parse(body: &'a [u8], signature: &'a Signature) -> Result<Self, String> {
        let wire: Wire<'a> = serde_json::from_slice(body).map_err(|e| format!("malformed request: {e}"))?;
        Ok(Self {
            id: wire.id,
            inputs: inputs(wire.inputs, &signature.inputs)?,
            outputs: outputs(&wire.outputs, &signature.outputs)?,
        })
    }
}

fn inputs<'a>(given: Vec<WireInput<'a>>, specs: &'a [TensorSpec]) -> Result<Vec<Input<'a>>, String> {
    let mut slots: Vec<Option<Input<'a>>> = specs.iter().map(|_| None).collect();
    for wire in given {
        let slot = specs.iter().zip(&mut slots).find(|(spec, _)| spec.name == wire.name);
        let Some((spec, slot)) = slot else {
            return Err(format!("unknown input {:?}; the model takes {}", wire.name, names(specs)));
        };
        if slot.is_some() {
            return Err(format!("input {:?} is given twice", wire.name));
        }
        *slot = Some(Input::check(spec, &wire)?);
    }
    let missing =
        |spec: &TensorSpec| format!("input {:?} ({} {:?}) is missing", spec.name, spec.datatype, spec.shape);
    let inputs: Vec<Input<'a>> = specs
        .iter()
        .zip(slots)
        .map(|(spec, slot)| slot.ok_or_else(|| missing(spec)))
        .collect::<Result<_, _>>()?;
    check_symbols(&inputs)?;
    Ok(inputs)
}

/// Dimensions of one name must have one size. ONNX Runtime does not ask, and what then goes wrong inside the model
/// would look like the model's fault.
fn check_symbols(inputs: &[Input<'_>]) -> Result<(), String> {
    let mut known: Vec<(&str, usize, &str)> = Vec::new();
    for input in inputs {
        let name = input.spec.name.as_str();
        for (symbol, &size) in input.spec.symbols.iter().zip(&input.shape) {
            match known.iter().find(|(other, ..)| other == symbol) {
                Some(&(_, earlier, where_)) if earlier != size => {
                    return Err(format!(
                        "input {name:?}: dimension {symbol:?} is {size}, but {earlier} in input {where_:?}"
                    ));
                }
                Some(_) => {}
                None if symbol.is_empty() => {}
                None => known.push((symbol, size, name)),
            }
        }
    }
    Ok(())
}

fn outputs<'a>(asked: &[WireOutput<'_>], specs: &'a [TensorSpec]) -> Result<Vec<&'a TensorSpec>, String> {
    if asked.is_empty() {
        return Ok(specs.iter().collect());
    }
    let mut chosen: Vec<&TensorSpec> = Vec::with_capacity(asked.len());
    for output in asked {
        let Some(spec) = specs.iter().find(|spec| spec.name == output.name) else {
            return Err(format!("unknown output {:?}; the model gives {}", output.name, names(specs)));
        };
        if chosen.iter().any(|earlier| earlier.name == spec.name) {
            return Err(format!("output {:?} is asked for twice", spec.name));
        }
        chosen.push(spec);
    }
    Ok(chosen)
}

impl<'a> Input<'a> {
    fn check(spec: &'a TensorSpec, wire: &WireInput<'a>) -> Result<Self, String> {
        let name = &spec.name;
        if Datatype::from_name(&wire.datatype) != Some(spec.datatype) {
            return Err(format!(
                "input {name:?}: datatype {:?} was given, {:?} is expected",
                wire.datatype,
                spec.datatype.name()
            ));
        }
        let Some(shape) = spec.accepts(&wire.shape) else {
            return Err(format!(
                "input {name:?}: shape {:?} was given, {:?} is expected (-1: any size)",
                wire.shape, spec.shape
            ));
        };
        // Beyond isize::MAX bytes there is no tensor, and a product that overflows would pass for a small one.
        let elements = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
        if elements.is_none_or(|elements| elements > isize::MAX as usize / size_of::<u64>()) {
            return Err(format!("input {name:?}: shape {shape:?} is too large"));
        }
        Ok(Self { spec, shape, data: wire.data })
    }

    /// The tensor for ONNX Runtime, which must be loaded.
    ///
    /// # Errors
    /// What is wrong with the elements, for the client.
    pub fn tensor(&self) -> Result<DynValue, String> {
        self.spec
            .datatype
            .tensor(&self.shape, self.data)
            .map_err(|problem| format!("input {:?}: {problem}", self.spec.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature() -> Signature {
        let spec = |name: &str, datatype, shape: &[i64]| TensorSpec {
            name: name.to_owned(),
            datatype,
            shape: shape.to_vec(),
            symbols: shape
                .iter()
                .map(|&size| if size < 0 { "n".to_owned() } else { String::new() })
                .collect(),
        };
        Signature {
            inputs: vec![spec("x", Datatype::Float32, &[-1, 2]), spec("mask", Datatype::Bool, &[-1])],
            outputs: vec![spec("a", Datatype::Float32, &[-1]), spec("b", Datatype::Int64, &[-1])],
        }
    }

    const X: &str = r#"{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}"#;
    const MASK: &str = r#"{"name":"mask","shape":[1],"datatype":"BOOL","data":[true]}"#;

    fn error(inputs: &str) -> String {
        let body = format!(r#"{{"inputs":[{inputs}]}}"#);
        InferRequest::parse(body.as_bytes(), &signature()).unwrap_err()
    }

    #[test]
    fn takes_keys_and_inputs_in_any_order() {
        let signature = signature();
        let body = format!(
            r#"{{"parameters":{{"p":1}},"outputs":[{{"name":"b"}}],"inputs":[
                {MASK},{{"data":[1,2],"parameters":{{}},"datatype":"FP32","shape":[1,2],"name":"x"}}],
                "id":"q\u00e9"}}"#
        );
        let request = InferRequest::parse(body.as_bytes(), &signature).unwrap();
        assert_eq!(request.id.as_deref(), Some("qé"));
        let names: Vec<_> = request.inputs.iter().map(|input| input.spec.name.as_str()).collect();
        assert_eq!(names, ["x", "mask"]);
        assert_eq!(request.inputs[0].shape, [1, 2]);
        assert_eq!(request.outputs, [&signature.outputs[1]]);
    }

    #[test]
    fn without_a_choice_gives_all_outputs() {
        let signature = signature();
        for outputs in ["", r#","outputs":[]"#] {
            let body = format!(r#"{{"inputs":[{X},{MASK}]{outputs}}}"#);
            let request = InferRequest::parse(body.as_bytes(), &signature).unwrap();
            assert_eq!(request.outputs.len(), 2);
            assert_eq!(request.id, None);
        }
    }

    #[test]
    fn says_which_input_is_wrong_and_how() {
        assert_eq!(error(X), r#"input "mask" (BOOL [-1]) is missing"#);
        assert_eq!(error(&[X, MASK, X].join(",")), r#"input "x" is given twice"#);
        assert_eq!(error(&X.replace("\"x\"", "\"y\"")), r#"unknown input "y"; the model takes "x", "mask""#);
        assert_eq!(
            error(&X.replace("FP32", "FP16")),
            r#"input "x": datatype "FP16" was given, "FP32" is expected"#
        );
        for shape in ["[1,3]", "[2]", "[1,2,1]", "[-1,2]", "[]"] {
            let problem = error(&X.replace("[1,2],\"datatype", &format!("{shape},\"datatype")));
            assert!(problem.starts_with(r#"input "x": shape ["#), "{problem}");
            assert!(problem.ends_with("[-1, 2] is expected (-1: any size)"), "{problem}");
        }
        let huge = error(&X.replace("[1,2],\"datatype", "[9223372036854775807,2],\"datatype"));
        assert_eq!(huge, r#"input "x": shape [9223372036854775807, 2] is too large"#);
    }

    #[test]
    fn dimensions_of_one_name_have_one_size() {
        let longer = MASK.replace("[1]", "[2]").replace("[true]", "[true,false]");
        assert_eq!(error(&[X, &longer].join(",")), r#"input "mask": dimension "n" is 2, but 1 in input "x""#);
    }

    #[test]
    fn says_which_output_is_wrong() {
        for (outputs, problem) in [
            (r#"{"name":"c"}"#, r#"unknown output "c"; the model gives "a", "b""#),
            (r#"{"name":"a"},{"name":"a"}"#, r#"output "a" is asked for twice"#),
        ] {
            let body = format!(r#"{{"inputs":[{X},{MASK}],"outputs":[{outputs}]}}"#);
            assert_eq!(InferRequest::parse(body.as_bytes(), &signature()).unwrap_err(), problem);
        }
    }

    #[test]
    fn says_where_the_json_is_malformed() {
        for (body, place) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{\n\"inputs\": [}", "line 2 column 12"),
            ("[]", "line 1 column"),
            ("{}", "missing field `inputs` at line 1 column 2"),
            (r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32"}]}"#, "missing field `data`"),
            (r#"{"inputs":[{"name":"x","shape":[1.5],"datatype":"FP32","data":[]}]}"#, "line 1 column 35"),
            (r#"{"inputs":[]} x"#, "trailing characters at line 1 column 15"),
            (r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1,}]}"#, "line 1 column 64"),
        ] {
            let problem = InferRequest::parse(body.as_bytes(), &signature()).unwrap_err();
            assert!(problem.starts_with("malformed request: ") && problem.contains(place), "{problem}");
        }
        let not_utf8 = b"{\"inputs\":[{\"name\":\"\xff\"}]}";
        assert!(InferRequest::parse(not_utf8, &signature()).is_err());
    }
}
