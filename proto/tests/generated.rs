//! The generated code is part of the source, so that a build needs neither a compiler for protos nor a build script.

use std::{env, error::Error, fs, path::Path};

/// Set `LOGMESH_GENERATE=1` to write the file anew after a change of the proto: `make generate`.
#[test]
fn generated_code_is_what_the_proto_says() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir()?;
    let descriptors = protox::compile(["logmesh/v1/ingest.proto"], [root.join("proto")])?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .bytes(".")
        .btree_map(".")
        .out_dir(out.path())
        .compile_fds(descriptors)?;
    let fresh = fs::read_to_string(out.path().join("logmesh.v1.rs"))?;
    let kept = root.join("src/generated/logmesh.v1.rs");
    if env::var_os("LOGMESH_GENERATE").is_some() {
        fs::write(&kept, &fresh)?;
    }
    assert!(fs::read_to_string(&kept)? == fresh, "src/generated is stale: run `make generate`");
    Ok(())
}
