//! Serves ONNX models by the Open Inference Protocol (version 2, REST and gRPC) with ONNX Runtime.
//!
//! The way of a request, which is also the order in which to read the code: [`app`] has both protocols on one port,
//! [`rest`] and [`grpc`], in the layers of `halftone-telemetry`, which read what the filter decided, log and measure;
//! there its [`model`] is found in [`models`] and its body is read, as far as the [`budget`] reaches. [`request`] checks it against
//! the model's [`signature`] and makes its tensors, of JSON ([`elements`]), of bytes ([`binary`]) or of gRPC's typed
//! fields, and of its [`features`]. As a [`job`] it waits in the model's [`queue`] for one of its [`workers`], which runs it, perhaps with others
//! as a [`batch`]; when the model is [`remote`], it is sent to the server that has it. The [`output`]s go back the way that the request came;
//! on it they are looked at ([`checks`]), and what was seen is handed over to who reports it to the control plane
//! ([`observations`]).
//!
//! Around it: [`cli`] is the command line, [`settings_file`] what stands for it in a file, [`repository`] the folder of models with the [`config`] of each, [`keeper`]
//! keeps what is served in step with it, [`runtime`] loads ONNX Runtime, [`provider`] is what models run on, [`warmup`] runs a model before it is ready,
//! [`gauges`] tells operators how full the models are, [`batch_sizes`] how much is run together and [`rejections`] what was turned away, [`server`] starts and stops, [`connections`] takes connections and bounds what each may hold.

pub mod app;
pub mod batch;
pub mod batch_sizes;
pub mod batch_spans;
pub mod binary;
pub mod breaker;
pub mod budget;
pub mod call;
pub mod checks;
pub mod cli;
pub mod config;
pub mod connections;
pub mod datatype;
pub mod deadline;
pub mod elements;
pub mod failure;
pub mod features;
pub mod gauges;
pub mod grpc;
pub mod job;
pub mod keeper;
pub mod model;
pub mod models;
pub mod observations;
pub mod offload;
pub mod output;
pub mod provider;
pub mod queue;
pub mod rejections;
pub mod remote;
pub mod repository;
pub mod request;
pub mod rest;
pub mod runtime;
pub mod server;
pub mod settings_file;
pub mod signature;
pub mod warmup;
pub mod workers;
