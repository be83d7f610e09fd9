//! Compiles the interface of a vttablet, for the side that is called.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=../../clients/proto");
    let place = "../../clients/proto";
    let compiled = protox::compile([format!("{place}/tabletmanagerservice.proto")], [place])?;
    tonic_prost_build::configure().include_file("interface.rs").compile_fds(compiled)?;
    Ok(())
}
