//! Collects `presets/providers/*.toml` into one list, so that a new provider is one file and no Rust.
//! The list is included by `src/provider/mod.rs` and holds each file's name and text.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

#[allow(clippy::disallowed_methods, reason = "cargo tells a build script its output directory only this way")]
fn out_dir() -> io::Result<PathBuf> {
    std::env::var_os("OUT_DIR").map(PathBuf::from).ok_or_else(|| io::Error::other("cargo did not set OUT_DIR"))
}

fn main() -> io::Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("presets/providers");
    println!("cargo::rerun-if-changed={}", dir.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(&dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "toml") {
            files.push(path);
        }
    }
    files.sort();
    let mut list = String::from("&[\n");
    for path in &files {
        println!("cargo::rerun-if-changed={}", path.display());
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let _ = writeln!(list, "    ({name:?}, include_str!({:?})),", path.display().to_string());
    }
    list.push_str("]\n");
    fs::write(out_dir()?.join("provider_presets.rs"), list)
}
