//! What the system lets a process have: raised or taken as an error where the default would end the server.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// More open files than this are of no use: connections are capped well below.
const FILES_WANTED: u64 = 65_536;
/// SIGXFSZ: a file would grow over the limit for files. Its default ends the process; the error of the write says more.
const FILE_TOO_LARGE: i32 = 25;

/// Called once when the server starts, inside the runtime.
///
/// # Errors
/// If the system does not let a signal be handled.
pub(super) fn prepare() -> io::Result<()> {
    // The handler stays when the listener goes: from here on the signal does nothing.
    drop(signal(SignalKind::from_raw(FILE_TOO_LARGE))?);
    let now = getrlimit(Resource::Nofile);
    let wanted = now.maximum.map_or(FILES_WANTED, |max| max.min(FILES_WANTED));
    if now.current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: now.maximum })
    {
        tracing::warn!(%error, "the limit of open files could not be raised; agents may not start under many connections");
    }
    Ok(())
}
