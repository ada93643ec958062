fn main() -> std::process::ExitCode {
    drystone_build::Builder::new("proto").run()
}
