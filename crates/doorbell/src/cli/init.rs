//! `doorbell init`: a directory to start from. What it writes passes `check` and can be served and rung at once: a
//! commented configuration, an agent that works, and fresh secrets in files that only their owner can read.

use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use doorbell_core::Secret;
use doorbell_core::provider::{self, Algorithm, JwtAlgorithm, KeyForm, Preset, Scheme, Verifier, VerifyOptions};

use super::Env;
use super::fault::Fault;
use super::providers::nearest;
use super::screen::Screen;
use super::table::one_line;
use crate::app::private;

/// What is asked for when nobody is asked.
const DEFAULT_PROVIDER: &str = "github";
/// Methods that suit a sender we have no preset of, with what a person calls them.
const METHODS: [(&str, &str); 2] =
    [("hmac", "another sender that signs (HMAC-SHA256)"), ("bearer", "another sender with a token")];

/// Arguments of `doorbell init`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// Where to write
    #[arg(default_value = ".", value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Who will send: one of `doorbell providers`, or `hmac` or `bearer` [default: asked for on a terminal, else github]
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<String>,
    /// Ask nothing
    #[arg(short = 'y', long)]
    pub(crate) yes: bool,
}

/// Writes the files; nothing that is there is touched.
///
/// # Errors
/// If one of the files is there already, or cannot be written.
pub(crate) async fn run(args: InitArgs, env: Env) -> Result<ExitCode> {
    let screen = Screen::new(&env);
    let asks = !args.yes && screen.is_terminal() && std::io::stdin().is_terminal();
    let sender = match &args.provider {
        Some(name) => Sender::named(name)?,
        None if asks => tokio::task::spawn_blocking(ask).await.context("asking broke off")??,
        None => Sender::named(DEFAULT_PROVIDER)?,
    };
    let files = files(&sender)?;
    let there: Vec<String> =
        files.iter().map(|f| args.dir.join(&f.path)).filter(|p| p.exists()).map(|p| p.display().to_string()).collect();
    if !there.is_empty() {
        let are = if there.len() == 1 { "is" } else { "are" };
        let what = format!("{} {are} there already, so nothing was written", there.join(" and "));
        return Err(Fault::new(what).advice("Choose another directory: doorbell init DIR").into());
    }
    for file in &files {
        file.write(&args.dir)?;
        screen.line(format_args!("wrote {}  {}", args.dir.join(&file.path).display(), file.about))?;
    }
    screen.line(screen.wrapped(&next_steps(&args.dir, &sender), 10))?;
    Ok(ExitCode::SUCCESS)
}

/// Whom the first webhook is for.
#[derive(Clone, Debug)]
struct Sender {
    preset: Arc<Preset>,
    is_method: bool,
}

impl Sender {
    fn named(name: &str) -> Result<Self> {
        let is_method = METHODS.iter().any(|(method, _)| *method == name);
        match provider::get(name).filter(|preset| is_method || is_offered(preset)) {
            Some(preset) => Ok(Self { preset: preset.clone(), is_method }),
            None => {
                let fault = Fault::usage(format!("there is no provider `{}` that init can set up", one_line(name)));
                Err(fault.advice(not_offered(name)).into())
            }
        }
    }

    /// The line of the configuration that says how it is checked.
    fn rule(&self) -> String {
        let key = if self.is_method { "auth" } else { "provider" };
        format!("{key} = \"{}\"", self.preset.id)
    }

    /// The line of the configuration that says which of its events are wanted.
    fn filter(&self) -> &'static str {
        match self.preset.id.as_str() {
            // GitHub sends one as soon as the webhook is set up (its docs: "ping"), and it is no work for an agent.
            "github" => "filter = 'event.type != \"ping\"'             # CEL over event, data, headers and query",
            _ => {
                "# filter = 'event.type == \"…\"'              # CEL over event, data, headers and query; without it: all"
            }
        }
    }

    /// A fresh secret, in the form that this sender's are in.
    fn secret(&self) -> Result<String> {
        let hex = private::random_text().context("no random numbers")?;
        let base64 = STANDARD.encode(hex::decode(&hex).context("no random numbers")?);
        let forms = [hex, format!("whsec_{base64}"), base64];
        let suits = |text: &String| {
            Verifier::new(self.preset.clone(), &[Secret::new(text.clone())], VerifyOptions::default()).is_ok()
        };
        forms.into_iter().find(suits).with_context(|| format!("no secret can be made for {}", self.preset.name))
    }
}

/// What to do about a name that is not offered.
fn not_offered(name: &str) -> String {
    if let Some(preset) = provider::get(name) {
        return format!(
            "{} is known, and its secret cannot be made here: `doorbell providers {name}` says what to write.",
            preset.name
        );
    }
    let known: Vec<&str> = offered().map(|p| p.id.as_str()).chain(METHODS.map(|(m, _)| m)).collect();
    let near = nearest(name, &known);
    let all = "`doorbell providers` lists all senders; for one that is not there take `hmac` or `bearer`.";
    if near.is_empty() { all.to_owned() } else { format!("Did you mean {}? {all}", near.join(" or ")) }
}

fn offered() -> impl Iterator<Item = &'static Arc<Preset>> {
    provider::presets().values().filter(|preset| is_offered(preset))
}

/// Senders whose secret is a shared text, which can be made here. (A public key cannot, nor one that the sender names.)
fn is_offered(preset: &Preset) -> bool {
    let general = ["api-key", "basic", "bearer", "hmac", "none", "path-token"].contains(&preset.id.as_str());
    let shared = match &preset.scheme {
        Scheme::Signed(signed) => !matches!(signed.algorithm, Algorithm::Public(_)) && signed.key != KeyForm::NamedSha1,
        Scheme::Jwt(rule) => rule.algorithm == JwtAlgorithm::Hs256,
        Scheme::Token { .. } => true,
        Scheme::Basic | Scheme::Sns | Scheme::ClientCert(_) | Scheme::None => false,
    };
    !general && shared
}

fn ask() -> Result<Sender> {
    let mut names: Vec<(String, String)> = offered().map(|p| (p.name.clone(), p.id.clone())).collect();
    names.extend(METHODS.map(|(id, name)| (name.to_owned(), id.to_owned())));
    let shown: Vec<String> = names.iter().map(|(name, _)| name.clone()).collect();
    let start = names.iter().position(|(_, id)| id == DEFAULT_PROVIDER).unwrap_or(0);
    let chosen = inquire::Select::new("Who will ring first?", shown)
        .with_starting_cursor(start)
        .with_help_message("more can be added to doorbell.toml later")
        .raw_prompt()
        .context("nothing was chosen, so nothing was written")?;
    let (_, id) = names.get(chosen.index).context("nothing was chosen")?;
    Sender::named(id)
}

/// One file to be written.
struct File {
    path: PathBuf,
    text: String,
    kind: Kind,
    about: &'static str,
}

enum Kind {
    Plain,
    Program,
    Secret,
}

impl File {
    fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(&self.path);
        let told = || format!("cannot write {}", path.display());
        let parent = path.parent().unwrap_or(dir);
        match self.kind {
            Kind::Secret => {
                private::prepare(parent)?;
                private::write(&path, &self.text).with_context(told)
            }
            Kind::Plain | Kind::Program => {
                fs::create_dir_all(parent).with_context(told)?;
                let mut options = fs::OpenOptions::new();
                options.write(true).create_new(true);
                #[cfg(unix)]
                if let Kind::Program = self.kind {
                    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o755);
                }
                let mut file = options.open(&path).with_context(told)?;
                std::io::Write::write_all(&mut file, self.text.as_bytes()).with_context(told)
            }
        }
    }
}

fn files(sender: &Sender) -> Result<Vec<File>> {
    let name = &sender.preset.id;
    let config = include_str!("init/doorbell.toml")
        .replace("@NAME@", name)
        .replace("@RULE@", &sender.rule())
        .replace("@FILTER@", sender.filter())
        .replace("@SENDER@", &sender.preset.name);
    Ok(vec![
        File { path: "doorbell.toml".into(), text: config, kind: Kind::Plain, about: "the configuration" },
        File {
            path: "agent.sh".into(),
            text: include_str!("init/agent.sh").into(),
            kind: Kind::Program,
            about: "an agent that works",
        },
        File {
            path: format!("secrets/{name}").into(),
            text: format!("{}\n", sender.secret()?),
            kind: Kind::Secret,
            about: "a fresh webhook secret, mode 0600",
        },
        File {
            path: "secrets/.gitignore".into(),
            text: "*\n".into(),
            kind: Kind::Plain,
            about: "keeps the secrets out of git",
        },
    ])
}

fn next_steps(dir: &Path, sender: &Sender) -> String {
    let go = if dir == Path::new(".") { String::new() } else { format!("  cd {}\n", dir.display()) };
    let name = &sender.preset.id;
    let as_whom = if sender.is_method { String::new() } else { format!(" as {} would", sender.preset.name) };
    let whom = if sender.is_method { "your sender" } else { &sender.preset.name };
    let setup = sender.preset.docs.setup.as_deref().filter(|_| !sender.is_method);
    let setup = setup.map(|s| format!("  where   {s}\n")).unwrap_or_default();
    let theirs = match &sender.preset.docs.secret_name {
        Some(called) if !sender.is_method => {
            format!("\n          (if {whom} gives you one, its \"{called}\", put that into the file instead)")
        }
        _ => String::new(),
    };
    let go = match sender.preset.signs_public_url() {
        true => format!("{go}  set public_url in doorbell.toml: {whom} signs the address that it knows us by\n"),
        false => go,
    };
    format!(
        "\nNext:\n{go}  doorbell check         is everything in order?\n  doorbell serve         accept and run\n  \
         doorbell send {name}   in another terminal: ring it{as_whom}\n\n\
         Then tell {whom}:\n{setup}  URL     https://<how this server is reached from outside>/hooks/{name}\n  \
         secret  the content of secrets/{name}{theirs}"
    )
}

#[cfg(test)]
mod tests {
    use doorbell_core::provider::Confidence;

    use super::*;
    use crate::config::{Disk, Input, Purpose, World};

    fn args(dir: &Path, provider: Option<&str>) -> InitArgs {
        InitArgs { dir: dir.into(), provider: provider.map(Into::into), yes: true }
    }

    fn world() -> World {
        World {
            env: Arc::new([("PATH".into(), "/usr/bin:/bin".into())].into()),
            files: Arc::new(Disk),
            fetch: Arc::new(doorbell_net::Client::new().unwrap()),
            clock: doorbell_core::Clock::system(),
        }
    }

    /// What was written, and what its check warns of.
    fn checked(dir: &Path, world: &World) -> (String, Vec<String>) {
        let text = fs::read_to_string(dir.join("doorbell.toml")).unwrap();
        let input = Input { text: &text, file: "doorbell.toml", base: dir, purpose: Purpose::Check };
        let resolved = crate::config::resolve(input, world).unwrap_or_else(|faults| panic!("{faults:#?}\n{text}"));
        let warnings = resolved.warnings.into_iter().map(|w| w.problem).collect();
        (text, warnings)
    }

    #[tokio::test]
    async fn what_is_written_for_every_sender_passes_the_check_with_a_warning_only_where_its_rule_is_unconfirmed() {
        let senders: Vec<&str> = offered().map(|p| p.id.as_str()).chain(METHODS.map(|(m, _)| m)).collect();
        assert!(senders.len() >= 100, "{senders:?}");
        let world = world();
        for sender in senders {
            let dir = tempfile::tempdir().unwrap();
            run(args(dir.path(), Some(sender)), Env::new()).await.unwrap();
            let (text, warnings) = checked(dir.path(), &world);
            let is_unconfirmed = provider::get(sender).is_some_and(|p| p.confidence == Confidence::Secondary);
            let count = |text: &str| warnings.iter().filter(|w| w.contains(text)).count();
            let (unsure, url) = (count("from third parties only"), count("signs the URL"));
            let signs_url = provider::get(sender).is_some_and(|p| p.signs_public_url());
            assert_eq!((unsure, url), (usize::from(is_unconfirmed), usize::from(signs_url)), "{sender}: {warnings:?}");
            // Only its owner knows the token that such a sender shows.
            let asks = count("without `verify_token`");
            assert_eq!(asks, usize::from(["meta", "strava", "websub"].contains(&sender)), "{sender}: {warnings:?}");
            assert_eq!(warnings.len(), unsure + url + asks, "{sender}: {warnings:?}");
            assert_eq!(text.contains("\nfilter = 'event.type != \"ping\"'"), sender == "github", "{text}");
            let told = next_steps(dir.path(), &Sender::named(sender).unwrap());
            assert!(told.contains(&format!("/hooks/{sender}\n")), "{told}");
            assert_eq!(told.contains("set public_url in doorbell.toml"), signs_url, "{told}");
        }
    }

    #[tokio::test]
    async fn nothing_is_overwritten_and_then_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("agent.sh"), "mine").unwrap();
        assert!(run(args(dir.path(), None), Env::new()).await.is_err());
        assert_eq!(fs::read_to_string(dir.path().join("agent.sh")).unwrap(), "mine");
        assert!(!dir.path().join("doorbell.toml").exists());
    }

    #[tokio::test]
    async fn a_secret_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        run(args(dir.path(), None), Env::new()).await.unwrap();
        let mode = |p: &str| fs::metadata(dir.path().join(p)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("secrets/github"), mode("secrets")), (0o600, 0o700));
    }
}
