//! Turns `proto/` into what the crate `drystone` is made of. A contract that breaks a rule does not build.

fn main() -> std::process::ExitCode {
    drystone_build::Builder::new("proto").platform().run()
}
