//! Compiles the message definitions with protox, so that no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["proto/onenet.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").btree_map(".").compile_fds(files)?;
    println!("cargo::rerun-if-changed=proto");
    Ok(())
}
