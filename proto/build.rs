//! Compiles the `.proto` files with protox, so that no protoc is needed.

use prost::Message;
use std::{env, fs, path::Path};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=halftone");
    println!("cargo:rerun-if-changed=inference");
    let ours = ["halftone/v1/evaluation_context.proto", "halftone/v1/observations.proto"];
    tonic_prost_build::configure()
        // What is looked at together is a key.
        .type_attribute(".halftone.v1.Series", "#[derive(PartialOrd, Ord)]")
        .compile_fds(protox::compile(ours, ["."])?)?;

    let files = protox::compile(["inference/open_inference.proto"], ["."])?;
    let descriptors = Path::new(&env::var("OUT_DIR")?).join("inference.bin");
    fs::write(descriptors, files.encode_to_vec())?;
    // Tensors are kept where they arrived; copying them is the model's affair.
    tonic_prost_build::configure().bytes(".inference").compile_fds(files)?;
    Ok(())
}
