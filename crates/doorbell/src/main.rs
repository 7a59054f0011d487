//! The binary. Sets up what belongs to the process alone (allocator, TLS provider, arguments, environment) and hands over
//! to [`doorbell::cli`].

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // One TLS provider for everything; that it is set already can only mean the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    doorbell::cli::main(std::env::args_os().collect(), std::env::vars_os().collect())
}
