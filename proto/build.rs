//! Compiles the `.proto` files with protox, so that no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=halftone");
    let files = protox::compile(["halftone/v1/evaluation_context.proto"], ["."])?;
    tonic_prost_build::configure().build_server(false).build_client(false).compile_fds(files)?;
    Ok(())
}
