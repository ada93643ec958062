//! The file of audit records, apart from the log: what strangers cause to be logged cannot push audit records out of it.

use std::{
    fs::{File, Metadata, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use tracing_subscriber::fmt::MakeWriter;

/// A file that is appended to. If it was renamed or removed, as by a log rotation, the next record opens a new one.
pub(super) struct AuditFile {
    path: PathBuf,
    state: Mutex<OpenFile>,
}

struct OpenFile {
    file: File,
    /// Whether a record may have been written in part, so that the next one needs a line of its own.
    is_torn: bool,
}

/// The file of audit records cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the audit file {path} cannot be opened; check log.audit_file and the rights of its directory")]
pub struct AuditFileError {
    path: String,
    source: io::Error,
}

impl AuditFile {
    pub(super) fn open(path: &Path) -> Result<Self, AuditFileError> {
        let file = append(path).map_err(|source| AuditFileError { path: path.display().to_string(), source })?;
        Ok(Self { path: path.to_owned(), state: Mutex::new(OpenFile { file, is_torn: false }) })
    }

    fn write(&self, record: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let OpenFile { file, is_torn } = &mut *state;
        let is_current = std::fs::metadata(&self.path).is_ok_and(|named| {
            let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino());
            file.metadata().is_ok_and(|open| identity(&open) == identity(&named))
        });
        if !is_current {
            *file = append(&self.path)?;
            *is_torn = false;
        }
        if *is_torn {
            io::Write::write_all(file, b"\n")?;
        }
        *is_torn = true;
        io::Write::write_all(file, record)?;
        *is_torn = false;
        Ok(())
    }
}

/// Opens a file to append to, accessible to its owner only.
fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Writes one record. One that cannot be written to the file goes to standard error, so that it is not lost.
pub(super) struct RecordWriter<'a>(&'a AuditFile);

impl io::Write for RecordWriter<'_> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.0.write(record) {
            let mut stderr = io::stderr().lock();
            writeln!(stderr, "audit record not written to {}: {error}", self.0.path.display())?;
            stderr.write_all(record)?;
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for AuditFile {
    type Writer = RecordWriter<'a>;

    fn make_writer(&'a self) -> RecordWriter<'a> {
        RecordWriter(self)
    }
}
