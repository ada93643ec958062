//! The binary as a library: the commands, the configuration and the process that runs services.
//!
//! `drystone` is [`App::new`] and nothing more. The binary of another team has its own services beside ours, and every
//! command knows them:
//!
//! ```ignore
//! fn main() -> std::process::ExitCode {
//!     drystone_cli::App::new().with(orders::module()).run()
//! }
//! ```
//!
//! | module | content |
//! |---|---|
//! | `access` | decisions about calls, as servers make them |
//! | `app` | which services a binary has |
//! | `command_line` | the commands and their flags |
//! | `commands` | what each command does, one a file |
//! | `config` | the configuration: a few settings of the mesh, and a section for each service |
//! | `envoy` | the exported configuration of Envoy |
//! | `identity` | the identities of the services of a process, from files or the Workload API |
//! | `operator` | calls of commands to services |
//! | `process` | a running process: bind, open, serve, wait, stop |

mod access;
mod accounts;
mod app;
mod certificates;
mod command_line;
mod commands;
mod config;
mod envoy;
mod identity;
mod import_file;
mod operator;
mod output;
mod process;
mod table;

pub use app::App;

// musl's allocator, which small containers run on, is several times slower under many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
