//! `doorbell openapi`: the description of the HTTP API, as the server of this version serves it.

use anyhow::Result;

use super::Context;
use super::fault::Exit;

const EXAMPLES: &str = "\
Examples:
  doorbell openapi > openapi.json    for what makes clients or looks at calls";

/// Arguments of `doorbell openapi`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct OpenapiArgs {}

/// Prints it.
///
/// # Errors
/// If standard output cannot be written.
pub(super) fn run(_args: &OpenapiArgs, cx: &Context) -> Result<Exit> {
    cx.screen.line(doorbell_server::openapi())?;
    Ok(Exit::Ok)
}
