//! Links the program with packed relocations where the system's loader knows them (glibc 2.36, Debian 12): unpacked they are
//! two megabytes, read once at every start, that an idle server keeps in memory for good.

use std::process::Command;

#[expect(clippy::disallowed_methods, reason = "Cargo tells a build script of its target by the environment alone")]
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let var = |name| std::env::var(name).unwrap_or_default();
    let is_glibc = var("CARGO_CFG_TARGET_OS") == "linux" && var("CARGO_CFG_TARGET_ENV") == "gnu";
    // What is built for another machine may run on an older one.
    if is_glibc && var("HOST") == var("TARGET") && glibc().is_some_and(|version| version >= (2, 36)) {
        // A linker that does not know it warns, and links as before.
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// This machine's, such as (2, 36).
fn glibc() -> Option<(u32, u32)> {
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let (major, minor) = said.trim().strip_prefix("glibc ")?.split_once('.')?;
    let minor = minor.split('.').next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
