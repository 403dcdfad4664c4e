//! The backend as its clients see it: real HTTP, real ONNX Runtime, the committed models.
#![allow(clippy::unwrap_used, reason = "in tests; clippy knows only those in functions marked as such")]

mod batching;
mod checks;
mod clients;
mod datatypes;
mod digits;
mod endpoints;
mod errors;
mod fake;
mod features;
mod grpc;
mod ledger;
mod observations;
mod onnx;
mod overload;
mod process;
mod remote;
mod repository;
mod spans;
mod support;
