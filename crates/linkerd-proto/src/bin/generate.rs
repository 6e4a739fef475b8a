//! Writes `src/gen/` from a descriptor set: `linkerd-proto-generate DESCRIPTOR_SET OUT_DIR`.
//!
//! The set comes from protoc (`tools/proto_rust.sh`), so that building the proxy needs none.

use prost::Message as _;
use std::{error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(set), Some(out)) = (args.next(), args.next()) else {
        return Err("usage: linkerd-proto-generate DESCRIPTOR_SET OUT_DIR".into());
    };
    let set = prost_types::FileDescriptorSet::decode(&*fs::read(set)?)?;
    tonic_prost_build::configure()
        .build_transport(false)
        .out_dir(&out)
        .compile_fds(set)?;
    Ok(())
}
