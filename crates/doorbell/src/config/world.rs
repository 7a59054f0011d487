//! What the configuration asks of the outside: the environment and a few files. Passed in, so that tests make their own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use doorbell_core::Clock;
use doorbell_core::ports::Fetch;

/// A secret file is a token or a key; a longer one is the wrong file.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// A configuration is written by people; a longer one is the wrong file.
pub(crate) const CONFIG_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// As much of a script's first line as Linux reads (`BINPRM_BUF_SIZE`).
const FIRST_LINE_BYTES_MAX: u64 = 256;

/// The outside, as the configuration sees it.
#[derive(Clone)]
pub struct World {
    /// The environment.
    pub env: Arc<BTreeMap<OsString, OsString>>,
    /// Reads files.
    pub files: Arc<dyn Files>,
    /// The guarded HTTP client, handed to runners.
    pub fetch: Arc<dyn Fetch>,
    /// The hour and the dice, handed to runners.
    pub clock: Clock,
}

impl World {
    /// The process' own environment, read once; the disk; the system's clock.
    ///
    /// # Errors
    /// If no HTTP client can be made, for want of CA certificates.
    pub fn ambient() -> Result<Self, doorbell_net::BuildError> {
        let fetch = Arc::new(doorbell_net::Client::new()?);
        let env = std::env::vars_os().collect();
        Ok(Self { env: Arc::new(env), files: Arc::new(Disk), fetch, clock: Clock::system() })
    }

    /// A variable, if it is set, is not empty and is text.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.env.get(std::ffi::OsStr::new(name))?.to_str().filter(|text| !text.is_empty())
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

/// A file with a secret.
#[derive(Clone, Debug)]
pub struct SecretFile {
    /// Its text.
    pub text: String,
    /// Its permission bits, where the system has them.
    pub mode: Option<u32>,
}

/// The few things asked of the disk.
pub trait Files: Send + Sync + 'static {
    /// Reads a file with a secret.
    ///
    /// # Errors
    /// Those of the disk, and if it is too long or no text.
    fn secret(&self, path: &Path) -> io::Result<SecretFile>;

    /// Whether there is a file that may be executed.
    fn is_program(&self, path: &Path) -> bool;

    /// The program that a script is for, by its first line (`#!`); none if it is no script.
    fn interpreter(&self, path: &Path) -> Option<String>;

    /// Whether there is a directory.
    fn is_directory(&self, path: &Path) -> bool;
}

/// The machine's disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn secret(&self, path: &Path) -> io::Result<SecretFile> {
        let (text, meta) = read_text(path, SECRET_BYTES_MAX)?;
        Ok(SecretFile { text, mode: mode(&meta) })
    }

    fn is_program(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && mode(&meta).is_none_or(|m| m & 0o111 != 0))
    }

    fn interpreter(&self, path: &Path) -> Option<String> {
        let mut line = Vec::new();
        File::open(path).ok()?.take(FIRST_LINE_BYTES_MAX).read_to_end(&mut line).ok()?;
        interpreter(&line)
    }

    fn is_directory(&self, path: &Path) -> bool {
        path.is_dir()
    }
}

/// The program that the first line of a script names. A carriage return before the line's end is a part of the name, as
/// for the system.
pub(super) fn interpreter(script: &[u8]) -> Option<String> {
    let line = script.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let name = line.trim_start_matches([' ', '\t']).split([' ', '\t']).next().unwrap_or_default();
    (!name.is_empty()).then(|| name.to_owned())
}

/// The text of a regular file, or of a link to one. Nothing else is opened: a pipe without a writer would be waited for
/// until the end of days, and a device may have no end.
///
/// # Errors
/// Those of the disk, and if it is no regular file, longer than `bytes_max`, or no text.
pub(crate) fn read_text(path: &Path, bytes_max: u64) -> io::Result<(String, Metadata)> {
    let regular = |meta: Metadata| {
        let why = "it is not a regular file but a directory, a pipe or a device; name a file";
        if meta.is_file() { Ok(meta) } else { Err(io::Error::new(io::ErrorKind::InvalidInput, why)) }
    };
    regular(std::fs::metadata(path)?)?;
    let file = File::open(path)?;
    let meta = regular(file.metadata()?)?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!(
            "it is longer than {} KiB, so it is hardly the right one",
            bytes_max / 1024
        )));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = &error.as_bytes()[..good];
        let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let line = 1 + before.iter().filter(|b| **b == b'\n').count();
        // Nothing of the text itself is told: it may be a secret.
        let why = format!(
            "it is not UTF-8 text: line {line} is none from its byte {} on; save it as UTF-8",
            good - start + 1
        );
        io::Error::new(io::ErrorKind::InvalidData, why)
    })?;
    Ok((text, meta))
}

#[cfg(unix)]
#[allow(clippy::unnecessary_wraps, reason = "other systems have no such bits")]
/// The permission bits, where the system has them.
pub(crate) fn mode(meta: &std::fs::Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    Some(meta.permissions().mode() & 0o7777)
}

#[cfg(not(unix))]
pub(crate) fn mode(_: &std::fs::Metadata) -> Option<u32> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_of_a_fair_length_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let pipe = std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
        assert!(pipe.success());
        for path in [at("pipe"), dir.path().to_path_buf(), "/dev/zero".into()] {
            let why = Disk.secret(&path).unwrap_err().to_string();
            assert!(why.contains("not a regular file"), "{}: {why}", path.display());
        }
        std::fs::write(at("file"), "secret").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        assert_eq!(Disk.secret(&at("link")).unwrap().text, "secret");
        std::fs::write(at("file"), vec![b'x'; 64 * 1024 + 1]).unwrap();
        assert!(Disk.secret(&at("file")).unwrap_err().to_string().contains("longer than 64 KiB"));
    }
}
