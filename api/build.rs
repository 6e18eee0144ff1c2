//! Compiles the gRPC protocol with protox, so that no protoc has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/hawser.proto");
    let files = protox::compile(["proto/hawser.proto"], ["proto"])?;
    // Ordered maps: the store writes messages down, and equal ones must be equal bytes.
    tonic_prost_build::configure().bytes(".").btree_map(".").compile_fds(files)?;
    Ok(())
}
