//! Generates the code of the crate `drystone` from `proto/`. The build fails if the contract is invalid.

fn main() -> std::process::ExitCode {
    drystone_build::Builder::new("proto").platform().run()
}
