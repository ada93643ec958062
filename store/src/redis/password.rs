//! The password, where a file holds it.

use std::{fs, path::Path};

use super::RedisOpenError;
use drystone_mesh::config::Secret;

/// Reads the password: what is in the file, but for the line end that an editor leaves.
///
/// # Errors
/// The file cannot be read, or there is nothing in it.
pub(super) fn read(path: &Path) -> Result<Secret, RedisOpenError> {
    let mut text = fs::read_to_string(path).map_err(|error| RedisOpenError::Password(path.to_owned(), error))?;
    // In place: a copy would outlive the secret.
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() { Err(RedisOpenError::NoPassword(path.to_owned())) } else { Ok(text.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_not_part_of_the_password() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, password) in
            [("right", "right"), ("right\n", "right"), ("right\r\n", "right"), ("right\n\n", "right\n"), (" r ", " r ")]
        {
            fs::write(file.path(), text).unwrap();
            assert_eq!(read(file.path()).unwrap().expose(), password, "{text:?}");
        }
    }

    #[test]
    fn a_file_without_a_password_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let refusal = read(&path).unwrap_err().to_string();
        let named = format!("redis.password_file, {}, cannot be read", path.display());
        assert!(refusal.starts_with(&named), "{refusal}");

        for nothing in ["", "\n"] {
            fs::write(&path, nothing).unwrap();
            let refusal = read(&path).unwrap_err().to_string();
            assert!(refusal.ends_with("is empty; write the password of Redis there"), "{refusal}");
        }
        fs::write(&path, b"\xff").unwrap();
        assert!(read(&path).unwrap_err().to_string().starts_with(&named));
    }
}
