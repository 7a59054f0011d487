//! Files and directories for their owner alone, and the chance that goes into them. Used for the data directory, the admin
//! token and what `doorbell init` writes.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Bytes of chance in a secret that is made here.
const RANDOM_BYTES: usize = 32;

/// A directory cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("the directory {path} cannot be made: {error}; choose another one, or make it for this user")]
pub struct DirectoryError {
    path: PathBuf,
    error: io::Error,
}

/// Makes the directory with mode 0700 if it is not there. One that is there stays as it is, since its
/// owner may share it; whoever uses it warns of that.
pub(crate) fn prepare(path: &Path) -> Result<(), DirectoryError> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|error| DirectoryError { path: path.into(), error })
}

/// As [`prepare`], and keeps a new directory out of git: beside a project's files it would be committed, with the admin
/// token and every event.
pub(crate) fn prepare_data(path: &Path) -> Result<(), DirectoryError> {
    let is_new = !path.is_dir();
    prepare(path)?;
    match is_new {
        true => fs::write(path.join(".gitignore"), "*\n").map_err(|error| DirectoryError { path: path.into(), error }),
        false => Ok(()),
    }
}

/// The permission bits, if there is such a file or directory and more than its owner may use it.
pub(crate) fn open_to_others(path: &Path) -> Option<u32> {
    let mode = crate::config::mode(&fs::metadata(path).ok()?)?;
    (mode & 0o077 != 0).then_some(mode)
}

/// 32 bytes of chance in hex. Not from `Clock`: a token is a secret also where tests hold the dice.
pub(crate) fn random_text() -> io::Result<String> {
    let mut bytes = [0; RANDOM_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gave no random numbers"))?;
    Ok(hex::encode(bytes))
}

/// Writes a new file with mode 0600, whole or not at all; fails if one is there.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}
