//! Generates the clients and servers of every wire from `proto/`, without `protoc`.

use std::error::Error;
use std::path::PathBuf;

/// Where the .proto files are.
const ROOT: &str = "proto";

/// Every wire, by path below [`ROOT`].
const FILES: [&str; 6] = [
    "kubevirt/cmd/info.proto",
    "kubevirt/cmd/v1.proto",
    "kubevirt/notify/info.proto",
    "kubevirt/notify/v1.proto",
    "kubelet/deviceplugin.proto",
    "kubelet/podresources.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    let mut compiler = protox::Compiler::new([ROOT])?;
    compiler.include_source_info(true).open_files(FILES)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(
        out.join("descriptors.bin"),
        compiler.encode_file_descriptor_set(),
    )?;
    tonic_prost_build::configure().compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
