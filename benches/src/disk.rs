//! What the disk itself can do: fdatasync of the same bytes, appended to a growing file.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Times of one fdatasync after each append, sorted.
pub(crate) fn fdatasyncs(dir: &Path, bytes: usize, time: Duration) -> anyhow::Result<Vec<Duration>> {
    let path = dir.join("fdatasync-probe");
    let mut file = std::fs::File::create(&path)?;
    let chunk = vec![0x5a; bytes];
    let mut times = Vec::new();
    let began = Instant::now();
    while began.elapsed() < time {
        let start = Instant::now();
        file.write_all(&chunk)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    drop(file);
    std::fs::remove_file(path)?;
    times.sort_unstable();
    Ok(times)
}
