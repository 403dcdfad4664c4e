//! The host against small filters written for one purpose each.

mod cost;
mod failures;
mod gate;
mod headers;
mod wat_filter;
mod world;
