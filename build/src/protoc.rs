//! Runs the vendored protoc.
//!
//! `buf/validate/validate.proto` comes from the descriptor set inside `prost-protovalidate-types`.

use std::{
    error::Error,
    fmt, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// All `.proto` files under `root`, sorted, relative to it.
pub(crate) fn files_under(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "proto") {
                files.extend(path.strip_prefix(root).map(Path::to_path_buf));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The output of protoc for files that do not compile.
#[derive(Debug)]
pub struct ProtocError(String);

impl fmt::Display for ProtocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "protoc rejected the contract:\n{}", self.0)
    }
}

impl Error for ProtocError {}

/// Compiles `files`, which are found under `roots`, and returns the encoded descriptor set: imports and comments
/// included, custom options intact.
///
/// # Errors
/// [`ProtocError`] if the files do not compile.
pub(crate) fn compile(roots: &[PathBuf], files: &[PathBuf], scratch: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let validate = scratch.join("buf_validate.binpb");
    fs::write(&validate, prost_protovalidate_types::DESCRIPTOR_POOL.encode_to_vec())?;
    let output = scratch.join("protoc_output.binpb");

    let protoc = Command::new(protoc_bin_vendored::protoc_bin_path()?)
        .arg("--include_imports")
        .arg("--include_source_info")
        .arg(flag("--descriptor_set_in=", &validate))
        .arg(flag("--descriptor_set_out=", &output))
        .args(roots.iter().map(|root| flag("--proto_path=", root)))
        .arg(flag("--proto_path=", &protoc_bin_vendored::include_path()?))
        .args(files)
        .output()?;
    if !protoc.status.success() {
        return Err(ProtocError(String::from_utf8_lossy(&protoc.stderr).into_owned()).into());
    }
    Ok(fs::read(output)?)
}

fn flag(name: &str, path: &Path) -> std::ffi::OsString {
    let mut flag = std::ffi::OsString::from(name);
    flag.push(path);
    flag
}
