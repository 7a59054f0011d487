//! `doorbell completions`: completion scripts for shells.

use anyhow::Result;
use clap_complete::Shell;

use super::Context;
use super::fault::Exit;

const EXAMPLES: &str = "\
Examples:
  doorbell completions bash > \\
    ~/.local/share/bash-completion/completions/doorbell
  doorbell completions zsh > ~/.zfunc/_doorbell
  doorbell completions fish > ~/.config/fish/completions/doorbell.fish";

/// Arguments of `doorbell completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// If standard output cannot be written.
pub(super) fn run(args: &CompletionsArgs, cx: &Context) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "doorbell", &mut script);
    cx.screen.write(&script)?;
    Ok(Exit::Ok)
}
