//! `drystone`: the binary with Drystone's own services.

use std::process::ExitCode;

use drystone_cli::App;

fn main() -> ExitCode {
    App::new().run()
}
