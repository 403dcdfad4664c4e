//! Compiles the `.proto` files with protox, so that no protoc is needed.

use prost::Message;
use std::{env, fs, path::Path};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=halftone");
    println!("cargo:rerun-if-changed=inference");
    let files = protox::compile(["halftone/v1/evaluation_context.proto"], ["."])?;
    tonic_prost_build::configure().build_server(false).build_client(false).compile_fds(files)?;

    let files = protox::compile(["inference/open_inference.proto"], ["."])?;
    let descriptors = Path::new(&env::var("OUT_DIR")?).join("inference.bin");
    fs::write(descriptors, files.encode_to_vec())?;
    // Tensors are kept where they arrived; copying them is the model's affair.
    tonic_prost_build::configure().bytes(".inference").compile_fds(files)?;
    Ok(())
}
