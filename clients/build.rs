//! Compiles the interfaces of vttablet and etcd. No protoc is needed for it.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = ["proto/tabletmanagerservice.proto", "proto/etcd.proto"];
    let compiled = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .build_server(false)
        .include_file("interfaces.rs")
        .compile_fds(compiled)?;
    Ok(())
}
