//! Reads the password file.

use std::{fs, path::Path};

use super::RedisOpenError;
use drystone_mesh::config::Secret;

/// Reads the password: the content of the file, without one trailing line break.
///
/// # Errors
/// The file cannot be read, or is empty.
pub(super) fn read(path: &Path) -> Result<Secret, RedisOpenError> {
    let mut text = fs::read_to_string(path).map_err(|error| RedisOpenError::Password(path.to_owned(), error))?;
    // In place: a copy of the secret would stay in memory.
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
    fn one_trailing_line_break_is_not_part_of_the_password() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, password) in
            [("right", "right"), ("right\n", "right"), ("right\r\n", "right"), ("right\n\n", "right\n"), (" r ", " r ")]
        {
            fs::write(file.path(), text).unwrap();
            assert_eq!(read(file.path()).unwrap().expose(), password, "{text:?}");
        }
    }

    #[test]
    fn an_empty_or_unreadable_password_file_is_rejected_with_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let error = read(&path).unwrap_err().to_string();
        let expected = format!("redis.password_file, {}, cannot be read", path.display());
        assert!(error.starts_with(&expected), "{error}");

        for empty in ["", "\n"] {
            fs::write(&path, empty).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.ends_with("is empty; write the password of Redis to it"), "{error}");
        }
        fs::write(&path, b"\xff").unwrap();
        assert!(read(&path).unwrap_err().to_string().starts_with(&expected));
    }
}
