//! Runs a model before it is ready: the first run of a session is the slowest, and shows what the model does with a
//! batch.

use crate::{batch::Runner, output::Output, signature::Signature};
use ort::{session::Session, value::DynValue};

/// Inputs larger than this are not made up.
const LARGEST: usize = 1 << 24;

/// Runs zeros, every dimension that the request decides being 1.
///
/// # Errors
/// Why it did not run. That is no reason not to serve it: not every model takes zeros.
pub fn run(runner: Runner<'_>, session: &mut Session) -> Result<(), String> {
    answer(runner, session, &inputs(runner.signature, &[false])?).map(|_| ())
}

/// Whether two requests in one batch get what each gets alone, tried on a row of zeros and one of ones. To be asked of
/// models whose first dimension can vary in every input and output.
///
/// # Errors
/// How they differ, or why they cannot be compared.
pub fn batches(runner: Runner<'_>, session: &mut Session) -> Result<(), String> {
    let zeros = answer(runner, session, &inputs(runner.signature, &[false])?)?;
    let ones = answer(runner, session, &inputs(runner.signature, &[true])?)?;
    let both = answer(runner, session, &inputs(runner.signature, &[false, true])?)?;
    for ((zero, one), both) in zeros.iter().zip(&ones).zip(&both) {
        let spec = both.spec(runner.signature);
        let different = || format!("output {:?} of two rows is not that of each", spec.name);
        if both.shape.first() != Some(&2) {
            return Err(format!("output {:?} of two rows has the shape {:?}", spec.name, both.shape));
        }
        let alike = |alone: &Output, row: usize| -> Result<bool, String> {
            let together = both.rows(row..row + 1);
            let (alone_bytes, together_bytes) = (numbers(alone, runner)?, numbers(&together, runner)?);
            Ok(alone.shape == together.shape
                && alone_bytes.len() == together_bytes.len()
                && alone_bytes.iter().zip(&together_bytes).all(|(a, b)| close(*a, *b)))
        };
        if !alike(zero, 0)? || !alike(one, 1)? {
            return Err(different());
        }
    }
    Ok(())
}

/// Rows of zeros or ones for every input.
fn inputs(signature: &Signature, rows: &[bool]) -> Result<Vec<DynValue>, String> {
    let tensor = |spec: &crate::signature::TensorSpec| {
        let shape: Vec<usize> = spec.shape.iter().map(|&size| usize::try_from(size).unwrap_or(1)).collect();
        let elements = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
        if elements.is_none_or(|elements| elements > LARGEST) {
            return Err(format!("input {:?} is too large to be made up", spec.name));
        }
        let parts =
            rows.iter().map(|&ones| spec.datatype.filled(&shape, ones)).collect::<Result<Vec<_>, _>>()?;
        match <[DynValue; 1]>::try_from(parts) {
            Ok([part]) => Ok(part),
            Err(parts) => {
                let mut shape = shape;
                if let Some(first) = shape.first_mut() {
                    *first *= parts.len();
                }
                spec.datatype.join(&shape, parts.iter())
            }
        }
    };
    signature.inputs.iter().map(tensor).collect()
}

fn answer(runner: Runner<'_>, session: &mut Session, inputs: &[DynValue]) -> Result<Vec<Output>, String> {
    let outputs: Vec<usize> = (0..runner.signature.outputs.len()).collect();
    runner.one(session, inputs, &outputs).map_err(|failure| failure.to_string())
}

/// The elements as their JSON numbers: precise enough to compare, and the same for every datatype.
fn numbers(output: &Output, runner: Runner<'_>) -> Result<Vec<f64>, String> {
    let elements = output.elements(output.spec(runner.signature))?;
    let json = serde_json::to_value(elements).map_err(|e| e.to_string())?;
    let number = |value: &serde_json::Value| match value {
        serde_json::Value::Bool(flag) => f64::from(u8::from(*flag)),
        // NaN, which is null, is like NaN.
        other => other.as_f64().unwrap_or(f64::MAX),
    };
    Ok(json.as_array().into_iter().flatten().map(number).collect())
}

/// A batch may take another way through the arithmetic, which rounds differently.
fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-3 * a.abs().max(b.abs()).max(1.0)
}
