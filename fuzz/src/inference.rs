//! What the fuzz targets of the inference service share: a model that takes every datatype.

use halftone_inference::{
    datatype::Datatype,
    request::Unchecked,
    runtime,
    signature::{Signature, TensorSpec},
};
use ort::environment::Environment;
use std::{num::NonZeroUsize, sync::OnceLock};

/// An input for every kind of elements, and two outputs.
pub fn signature() -> Signature {
    let spec = |name: &str, datatype, shape: &[i64]| TensorSpec {
        name: name.into(),
        datatype,
        shape: shape.to_vec(),
        symbols: shape.iter().map(|&size| if size < 0 { "n".to_owned() } else { String::new() }).collect(),
    };
    Signature {
        inputs: vec![
            spec("f", Datatype::Float32, &[-1, 2]),
            spec("b", Datatype::Bool, &[-1]),
            spec("i", Datatype::Int8, &[2]),
            spec("u", Datatype::Uint64, &[]),
            spec("h", Datatype::Float16, &[1]),
            spec("s", Datatype::String, &[-1]),
        ],
        outputs: vec![spec("x", Datatype::Float32, &[-1]), spec("y", Datatype::String, &[-1])],
    }
}

/// Checks a request, and that what passes is what it said. Each input is tried by itself too, so that one that is wrong
/// does not hide the others.
pub fn checked(request: &Unchecked<'_>, signature: &Signature) {
    load();
    let inputs = signature
        .inputs
        .iter()
        .map(|input| Signature { inputs: vec![input.clone()], outputs: signature.outputs.clone() });
    for signature in inputs.chain([signature.clone()]) {
        let Ok(request) = request.check(&signature, &[]) else { continue };
        assert_eq!(request.inputs.len(), signature.inputs.len());
        for (value, spec) in request.inputs.iter().zip(&signature.inputs) {
            assert_eq!(Datatype::from_ort(*value.data_type()), Some(spec.datatype));
            assert!(spec.accepts(value.shape()).is_some());
        }
        assert!(request.outputs.iter().all(|&output| output < signature.outputs.len()));
    }
}

/// Tensors are ONNX Runtime's.
fn load() {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let own = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty());
        let library =
            runtime::find(own.as_deref().map(std::path::Path::new)).expect("scripts/setup.sh fetched it");
        runtime::load(&library, NonZeroUsize::MIN).expect("it loads")
    });
}
