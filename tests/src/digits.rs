//! The held-out handwritten digits: the traffic to replay.

use crate::repository;
use anyhow::{Context, Result};
use serde_json::{Value, json};

/// One image and what it shows.
#[derive(Clone, Debug)]
pub struct Digit {
    /// The digit, 0 to 9.
    pub label: u8,
    /// An inference request of the Open Inference Protocol with the image, as JSON.
    pub request: String,
    /// The image: 64 values.
    pub pixels: Vec<u8>,
}

/// What the faulty version of the model does when a request asks for it; every other version ignores that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Probabilities that are no numbers. JSON has no form for them, so that the answer is an error, too.
    Nan,
    /// An answer that takes some milliseconds.
    Slow,
    /// A run that fails in ONNX Runtime.
    Fail,
}

impl Digit {
    /// The image: 64 pixels, 0 to 16.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The request, asking for a fault. The first pixel does it, which is 0 in every digit; `models/train.py` has its values.
    #[must_use]
    pub fn asking(&self, fault: Fault) -> String {
        let (value, outputs): (u8, &[&str]) = match fault {
            Fault::Nan => (1, &["label", "probabilities"]),
            Fault::Slow => (2, &["label"]),
            Fault::Fail => (3, &["label"]),
        };
        let mut pixels = self.pixels.clone();
        if let Some(first) = pixels.first_mut() {
            *first = value;
        }
        request(&pixels, outputs)
    }
}

/// All held-out images.
///
/// # Errors
/// When the file is not as `models/train.py` writes it.
pub fn test_set() -> Result<Vec<Digit>> {
    let path = repository().join("models/digits/test.csv");
    let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    text.lines()
        .skip(1)
        .map(|line| {
            let mut numbers = line.split(',').map(str::parse::<u8>);
            let label = numbers.next().context("an empty line")??;
            let pixels = numbers.collect::<Result<Vec<u8>, _>>()?;
            Ok(Digit { label, request: request(&pixels, &["label"]), pixels })
        })
        .collect()
}

/// The inference request for one image of 64 pixels.
fn request(pixels: &[u8], outputs: &[&str]) -> String {
    let outputs: Vec<Value> = outputs.iter().map(|name| json!({"name": name})).collect();
    let input = json!({"name": "pixels", "shape": [1, pixels.len()], "datatype": "FP32", "data": pixels});
    json!({"inputs": [input], "outputs": outputs}).to_string()
}

/// The digit that an inference response names.
#[must_use]
pub fn answer(response: &Value) -> Option<u8> {
    let outputs = response["outputs"].as_array()?;
    let label = outputs.iter().find(|output| output["name"] == "label")?;
    u8::try_from(label["data"][0].as_u64()?).ok()
}
