//! Compiles contracts, for the `build.rs` of a service.
//!
//! ```no_run
//! // build.rs
//! fn main() -> std::process::ExitCode {
//!     drystone_build::Builder::new("proto").run()
//! }
//! ```
//!
//! Every `.proto` file under `proto/` becomes part of the contract. They may import `drystone/access/v1/access.proto` and
//! Drystone's other files, `google/api`, `google/rpc`, `google/protobuf` and `buf/validate`, without copies of their own.
//! The build fails if the contract is invalid (an RPC without a rule, a service without a workload, a path variable that
//! is not a field); every finding names the RPC and what to do.
//!
//! The crate includes the result with `drystone::include_contract!();`, as one module for each package
//! (`acme::orders::v1` for `acme.orders.v1`) and `CONTRACT`:
//!
//! | generated | from |
//! |---|---|
//! | messages, typed clients and servers | the messages and services |
//! | validation of requests, in servers only | `buf.validate` |
//! | a `Debug` that redacts secrets | `debug_redact` |
//! | `CONTRACT`, an [`EncodedContract`] | the descriptor set, without comments of third-party files |

mod generate;
mod protoc;

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
};

use drystone_contract::{Contract, Contracts, EncodedContract, files};

pub use self::protoc::ProtocError;

/// Drystone's contracts, and the third-party files that they import.
const PLATFORM_PROTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto");

/// Compiles one contract.
#[derive(Debug, Clone)]
pub struct Builder {
    proto: PathBuf,
    includes: Vec<PathBuf>,
    is_platform: bool,
}

/// A compiled, valid contract.
#[derive(Debug)]
pub struct Compiled {
    /// The contract.
    pub contract: Contract,
    /// The names of its own files, relative to the proto folder: `acme/orders/v1/orders.proto`.
    pub files: Vec<String>,
}

impl Builder {
    /// A builder for the `.proto` files under this folder, relative to the crate.
    #[must_use]
    pub fn new(proto: impl Into<PathBuf>) -> Self {
        Self { proto: proto.into(), includes: Vec::new(), is_platform: false }
    }

    /// Adds an import path: the contract of another service, whose workloads and permissions rules can then name.
    #[must_use]
    pub fn include(mut self, folder: impl Into<PathBuf>) -> Self {
        self.includes.push(folder.into());
        self
    }

    /// Compiles the contract of Drystone itself.
    #[doc(hidden)]
    #[must_use]
    pub fn platform(mut self) -> Self {
        self.is_platform = true;
        self
    }

    /// Runs as a build script: writes the sources, or prints the errors.
    #[must_use]
    pub fn run(self) -> ExitCode {
        match self.write() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("\n{error}\n");
                ExitCode::FAILURE
            }
        }
    }

    /// Compiles and writes the sources to `OUT_DIR`.
    ///
    /// # Errors
    /// The files do not compile, the contract is invalid, or a file cannot be read or written.
    pub fn write(&self) -> Result<(), Box<dyn Error>> {
        let out = PathBuf::from(env::var("OUT_DIR")?);
        println!("cargo::rerun-if-changed={}", self.proto.display());
        for folder in &self.includes {
            println!("cargo::rerun-if-changed={}", folder.display());
        }
        let compiled = self.compile(&out)?;
        generate::write(&compiled, self.is_platform, &out)
    }

    /// Compiles and validates without generating code. `scratch` is a folder for temporary files.
    ///
    /// # Errors
    /// As [`Builder::write`].
    pub fn compile(&self, scratch: &Path) -> Result<Compiled, Box<dyn Error>> {
        let files = protoc::files_under(&self.proto)?;
        if files.is_empty() {
            return Err(format!("there is no .proto file under {}", self.proto.display()).into());
        }
        let platform = PathBuf::from(PLATFORM_PROTO);
        let mut roots = vec![self.proto.clone()];
        if !self.is_platform {
            roots.push(platform.clone());
        }
        roots.extend(self.includes.iter().cloned());
        let set = protoc::compile(&roots, &files, scratch)?;
        let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        let is_own = |name: &str| files.iter().any(|file| file == name) && !is_third_party(name);
        let set = without_third_party_comments(&set, is_own)?;

        if self.is_platform {
            let contract = Contract::decode(EncodedContract::platform("drystone", set.leak()))?;
            Contracts::merge(vec![contract.clone()])?;
            return Ok(Compiled { contract, files });
        }
        let contract = Contract::decode(EncodedContract::from_bytes(self.proto.display().to_string(), set))?;
        let mut all = vec![Self::new(platform).platform().compile(scratch)?.contract];
        for folder in &self.includes {
            let included = Self::new(folder.clone()).compile(scratch)?;
            all.push(included.contract);
        }
        all.push(contract.clone());
        Contracts::merge(all)?;
        Ok(Compiled { contract, files })
    }
}

/// Removes the comments of third-party files from a descriptor set: they are most of its size and are not used.
fn without_third_party_comments(set: &[u8], is_own: impl Fn(&str) -> bool) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut kept = Vec::with_capacity(set.len());
    for file in files::files(set)? {
        if is_own(file.name) {
            files::append(&mut kept, file.bytes);
        } else {
            files::append(&mut kept, &files::without_source_info(file.bytes)?);
        }
    }
    Ok(kept)
}

/// Whether this is a third-party file, vendored for other tools, and not part of a contract.
fn is_third_party(name: &str) -> bool {
    name.starts_with("google/") || name.starts_with("buf/")
}
