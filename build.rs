//! Turns `proto/` into everything that is made from it: messages, clients, servers, validation,
//! the descriptor set and the access table. A contract that breaks a rule of the house fails here.

#[path = "build/comments.rs"]
mod comments;
#[path = "build/contract.rs"]
mod contract;
#[path = "build/generate.rs"]
mod generate;
#[path = "build/protoc.rs"]
mod protoc;

use std::{env, error::Error, fs, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{error}\n");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let proto = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed={}", proto.display());
    println!("cargo::rerun-if-changed=build");

    let descriptor_set = protoc::compile(&proto, &protoc::files_under(&proto)?, &out)?;
    let descriptor_set = comments::only_of("drystone/", &descriptor_set)?;
    fs::write(out.join("descriptor_set.binpb"), &descriptor_set)?;

    let contract = contract::Contract::read(&descriptor_set)?;
    fs::write(out.join("methods.rs"), generate::method_table(&contract))?;
    generate::code(&contract, &descriptor_set, &out)
}
