//! Serves ONNX models by the Open Inference Protocol (version 2, REST) with ONNX Runtime.
//!
//! The way of a request, which is also the order in which to read the code: [`access`] logs it and reads what
//! the filter decided ([`context`]); [`http`] routes it and finds its [`model`] in [`models`]; the model's
//! [`pool`] gives it a session and a blocking thread; there [`request`] checks the JSON against the model's
//! [`signature`], [`elements`] reads the tensors, ONNX Runtime runs, and [`response`] writes the answer.
//!
//! Around it: [`cli`] is the command line, [`repository`] the folder of models, [`runtime`] loads ONNX
//! Runtime, [`server`] starts and stops.

pub mod access;
pub mod cli;
pub mod context;
pub mod datatype;
pub mod elements;
pub mod failure;
pub mod http;
pub mod model;
pub mod models;
mod payload;
pub mod pool;
pub mod repository;
pub mod request;
pub mod response;
pub mod runtime;
pub mod server;
pub mod signature;
