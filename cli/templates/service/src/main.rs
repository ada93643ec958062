fn main() -> std::process::ExitCode {
    drystone_cli::App::new().with({{name}}::module()).run()
}
