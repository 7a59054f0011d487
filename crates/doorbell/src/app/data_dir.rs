//! The admin token: given, or made on the first start in the data directory, for nobody but its owner to read.

use std::io;
use std::path::{Path, PathBuf};

use doorbell_core::Secret;

use super::private;
use crate::config::{ADMIN_TOKEN_BYTES_MIN, ServerSettings, read_text};

/// The token's file in the data directory.
const TOKEN_FILE: &str = "admin.token";
/// A token is a line; a longer file is something else.
const TOKEN_FILE_BYTES_MAX: u64 = 4096;

/// Why the directory or the token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The directory.
    #[error(transparent)]
    Directory(#[from] private::DirectoryError),
    /// The token cannot be read or made.
    #[error("the admin token in {path} cannot be used: {error}")]
    Token {
        /// Its file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Where the admin token is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenPlace {
    /// From the configuration or the environment.
    Given,
    /// In this file.
    File(PathBuf),
    /// In this file, which was made just now.
    Made(PathBuf),
}

/// The token of the configuration, else that of the file, which is made if it is not there.
pub(crate) fn admin_token(settings: &ServerSettings) -> Result<(Secret, TokenPlace), DataDirError> {
    if let Some(token) = &settings.admin_token {
        return Ok((token.clone(), TokenPlace::Given));
    }
    let path = settings.data_dir.join(TOKEN_FILE);
    if let Some(token) = token_in(&path)? {
        return Ok((token, TokenPlace::File(path)));
    }
    let failed = |error| DataDirError::Token { path: path.clone(), error };
    let token = private::random_text().map_err(failed)?;
    private::write(&path, &format!("{token}\n")).map_err(failed)?;
    Ok((Secret::new(token), TokenPlace::Made(path)))
}

/// The token of a file, if there is one.
fn token_in(path: &Path) -> Result<Option<Secret>, DataDirError> {
    let failed = |error| DataDirError::Token { path: path.into(), error };
    match read_text(path, TOKEN_FILE_BYTES_MAX) {
        Ok((text, _)) if text.trim().is_empty() => {
            Err(failed(io::Error::other("the file is empty; delete it and a new one is made")))
        }
        Ok((text, _)) => Ok(Some(Secret::new(text.trim()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Why a start would fail over the admin token; nothing is made.
///
/// # Errors
/// [`DataDirError::Token`].
pub(crate) fn check_token(settings: &ServerSettings) -> Result<(), DataDirError> {
    match settings.admin_token {
        Some(_) => Ok(()),
        None => token_in(&settings.data_dir.join(TOKEN_FILE)).map(drop),
    }
}

/// What somebody should look at: who else may read the directory and the token's file, and whether the token may be guessed.
/// Nothing of a directory or file that is not there.
pub(crate) fn warnings(settings: &ServerSettings) -> Vec<String> {
    let dir = &settings.data_dir;
    let mut found = Vec::new();
    if let Some(mode) = private::open_to_others(dir) {
        found.push(format!(
            "the data directory {} is open to others (mode {mode:o}), and it holds the events. Run: chmod 700 {}",
            dir.display(),
            dir.display()
        ));
    }
    if settings.admin_token.is_some() {
        return found;
    }
    let path = dir.join(TOKEN_FILE);
    if let Some(mode) = private::open_to_others(&path) {
        found.push(format!(
            "the admin token in {} can be read by others (mode {mode:o}). Run: chmod 600 {}, and make a new one",
            path.display(),
            path.display()
        ));
    }
    let token = read_text(&path, TOKEN_FILE_BYTES_MAX).ok();
    if token.is_some_and(|(text, _)| (1..ADMIN_TOKEN_BYTES_MIN).contains(&text.trim().len())) {
        found.push(format!(
            "the admin token in {} is shorter than {ADMIN_TOKEN_BYTES_MIN} characters, so it may be guessed. Delete the \
             file and a new one is made at the next start",
            path.display()
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_others_may_read_or_guess_is_told() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let settings = ServerSettings { data_dir: dir.path().join("data"), ..ServerSettings::default() };
        assert!(warnings(&settings).is_empty(), "nothing is there yet");
        private::prepare(&settings.data_dir).unwrap();
        admin_token(&settings).unwrap();
        assert!(warnings(&settings).is_empty());
        let file = settings.data_dir.join(TOKEN_FILE);
        fs::write(&file, "short\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(&settings.data_dir, fs::Permissions::from_mode(0o755)).unwrap();
        let told = warnings(&settings);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].contains("mode 755") && told[1].contains("mode 640") && told[2].contains("16 characters"));
        let given = ServerSettings { admin_token: Some(Secret::new("given")), ..settings };
        assert_eq!(warnings(&given).len(), 1, "the file is not used");
    }

    #[test]
    fn a_token_is_made_once_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let settings = ServerSettings { data_dir: dir.path().join("deep/data"), ..ServerSettings::default() };
        private::prepare(&settings.data_dir).unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&settings.data_dir), 0o700);
        let (made, place) = admin_token(&settings).unwrap();
        let file = settings.data_dir.join(TOKEN_FILE);
        assert_eq!(place, TokenPlace::Made(file.clone()));
        assert_eq!(mode(&file), 0o600);
        assert_eq!(made.expose().len(), 64);
        let (read, place) = admin_token(&settings).unwrap();
        assert_eq!((read.expose(), place), (made.expose(), TokenPlace::File(file.clone())));
        fs::write(&file, "\n").unwrap();
        assert!(admin_token(&settings).is_err());
    }
}
