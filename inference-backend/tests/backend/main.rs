//! The backend as its clients see it: real HTTP, real ONNX Runtime, the committed models.

mod datatypes;
mod digits;
mod endpoints;
mod errors;
mod onnx;
mod overload;
mod process;
mod support;
