//! From the words on the command line to the commands: what the parser does not do by itself. The options that all verbs of
//! a noun share are good before and after the verb; those of the noun's list are told where they would be without effect;
//! and a verb that was typed without its noun is told with it. Called by [`main`](super::main).

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory as _, Error, FromArgMatches as _};

use super::Cli;

/// More nouns than this have the verb: to name them all would say nothing.
const NOUNS_MAX: usize = 3;

/// Reads the words.
///
/// # Errors
/// Asked for help, or called wrongly.
pub(super) fn read(words: Vec<OsString>) -> Result<Cli, Error> {
    let mut command = Cli::command();
    let matches = command.try_get_matches_from_mut(words).map_err(|error| with_noun(error, &command))?;
    let noun = matches.subcommand().and_then(|(name, given)| Some((command.find_subcommand_mut(name)?, given)));
    if let Some((noun, given)) = noun {
        without_effect(noun, given)?;
    }
    Cli::from_arg_matches(&matches)
}

/// `doorbell runs --state failed show run_…`: the list's option means nothing to `show`.
fn without_effect(noun: &mut Command, given: &ArgMatches) -> Result<(), Error> {
    let Some(verb) = given.subcommand_name() else { return Ok(()) };
    let is_typed = |id: &str| given.value_source(id) == Some(ValueSource::CommandLine);
    let of_list = noun.get_arguments().filter(|arg| !arg.is_global_set());
    let Some(arg) = of_list.into_iter().find(|arg| is_typed(arg.get_id().as_str())) else { return Ok(()) };
    let option = arg.get_long().map_or_else(|| arg.get_id().to_string(), |long| format!("--{long}"));
    let what = if verb == "list" {
        format!("write '{option}' after 'list', or leave 'list' out")
    } else {
        format!("'{option}' is for the list of {}, and '{verb}' lists nothing: leave one of them out", noun.get_name())
    };
    Err(noun.error(ErrorKind::ArgumentConflict, what))
}

/// `doorbell replay evt_…`: there is such a verb, and it belongs to a noun.
fn with_noun(mut error: Error, command: &Command) -> Error {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else { return error };
    let has_verb = |noun: &&Command| noun.find_subcommand(word).is_some();
    let nouns: Vec<&str> = command.get_subcommands().filter(has_verb).map(Command::get_name).collect();
    if error.kind() != ErrorKind::InvalidSubcommand || nouns.is_empty() || nouns.len() > NOUNS_MAX {
        return error;
    }
    let whole: Vec<String> = nouns.iter().map(|noun| format!("'doorbell {noun} {word}'")).collect();
    let tip = format!("did you mean {}?", whole.join(" or "));
    error.remove(ContextKind::SuggestedSubcommand);
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> Option<String> {
        let words = line.split(' ').map(OsString::from).collect();
        read(words).err().map(|error| error.to_string())
    }

    #[test]
    fn what_all_verbs_have_is_good_before_and_after_the_verb() {
        let nouns = ["events", "runs", "decisions", "agents", "sources", "triggers", "keys", "secrets"];
        for noun in nouns {
            for line in ["-c f --json list", "list -c f --json", "--token t --url http://h list"] {
                assert_eq!(said(&format!("doorbell {noun} {line}")), None, "{noun} {line}");
            }
        }
        assert_eq!(said("doorbell runs -c f show run_000000000000000000"), None);
        assert_eq!(said("doorbell runs --state failed"), None);
        assert_eq!(said("doorbell runs list --state failed"), None);
    }

    #[test]
    fn an_option_of_the_list_is_told_where_it_would_do_nothing() {
        let told = said("doorbell runs --state failed show run_000000000000000000").unwrap();
        assert!(told.contains("'--state' is for the list of runs, and 'show' lists nothing"), "{told}");
        let told = said("doorbell agents -q x list").unwrap();
        assert!(told.contains("write '--q' after 'list'"), "{told}");
    }

    #[test]
    fn a_verb_without_its_noun_is_told_with_it() {
        assert!(said("doorbell replay evt_1").unwrap().contains("'doorbell events replay'"));
        assert!(said("doorbell rotate x").unwrap().contains("'doorbell keys rotate' or 'doorbell secrets rotate'"));
        assert!(!said("doorbell show x").unwrap().contains("doorbell runs show"), "every noun has it");
    }
}
