//! `doorbell init`: a directory to start from. What it writes passes `check` and can be served and rung at once: a
//! commented configuration, an agent that works, and fresh secrets in files that only their owner can read.

mod steps;

use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use doorbell_core::Secret;
use doorbell_core::provider::{self, Place, Preset, Scheme, Signer, Verifier, VerifyOptions};

use super::Env;
use super::fault::Fault;
use super::providers::nearest;
use super::screen::Screen;
use super::table::one_line;
use crate::app::private;

/// Methods that are no sender's own.
const GENERAL: [&str; 6] = ["api-key", "basic", "bearer", "hmac", "none", "path-token"];
/// What is asked for when nobody is asked.
const DEFAULT_PROVIDER: &str = "github";
/// Methods that suit a sender we have no preset of, with what a person calls them.
const METHODS: [(&str, &str); 2] =
    [("hmac", "another sender that signs (HMAC-SHA256)"), ("bearer", "another sender with a token")];

const EXAMPLES: &str = "\
Examples:
  doorbell init                                asks who will send; github where nobody can be asked
  doorbell init door --provider stripe -y      into the directory door, for Stripe
  doorbell init door --provider hmac           for a sender of your own that signs";

/// Arguments of `doorbell init`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
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
    screen.line(screen.wrapped(&steps::next(&args.dir, &sender), 10))?;
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
        match provider::get(name) {
            Some(preset) => Ok(Self { preset: preset.clone(), is_method: GENERAL.contains(&name) }),
            None => {
                let fault = Fault::usage(format!("there is no provider `{}` that init can set up", one_line(name)));
                Err(fault.advice(unknown(name)).into())
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
            "github" => "filter = 'event.type != \"ping\"'               # CEL over event, data, headers and query",
            _ => {
                "# filter = 'event.type == \"…\"'                # CEL over event, data, headers and query; without it: all"
            }
        }
    }

    /// What its runs could be put into lanes by.
    fn key(&self) -> &'static str {
        match self.preset.id.as_str() {
            "github" => "{{ data.repository.full_name }}",
            _ if self.preset.event.subject.is_empty() => "{{ event.type }}",
            _ => "{{ event.subject }}",
        }
    }

    /// Whether it shows a token of ours when it asks if this address is ours. (Hubs show the topic, which is theirs.)
    fn shows_a_token(&self) -> bool {
        matches!(self.preset.verify_token(), Some(Place::Query(name)) if name.ends_with("verify_token"))
    }

    /// Who has to make what the source's secret is.
    fn secret_from(&self) -> SecretFrom {
        match (&self.preset.scheme, self.preset.signer()) {
            (Scheme::None, _) => SecretFrom::Nobody,
            _ if self.preset.pairing.is_some() => SecretFrom::Pairing,
            (_, Signer::Secret) => SecretFrom::Us,
            (_, Signer::PrivateKey | Signer::SenderAlone(_)) => SecretFrom::Sender,
        }
    }

    /// A fresh secret, in the form that this sender's are in.
    fn secret(&self) -> Result<String> {
        let hex = private::random_text().context("no random numbers")?;
        let base64 = STANDARD.encode(hex::decode(&hex).context("no random numbers")?);
        let (login, named) = (format!("doorbell:{hex}"), format!("doorbell|{hex}"));
        let forms = [hex, format!("whsec_{base64}"), base64, login, named];
        let suits = |text: &String| {
            Verifier::new(self.preset.clone(), &[Secret::new(text.clone())], VerifyOptions::default()).is_ok()
        };
        forms.into_iter().find(suits).with_context(|| format!("no secret can be made for {}", self.preset.name))
    }
}

/// What to do about a name that nobody has.
fn unknown(name: &str) -> String {
    // A method is not what a misspelt sender means, least of all the one that checks nothing.
    let known: Vec<&str> = offered().map(|preset| preset.id.as_str()).collect();
    let near = nearest(name, &known);
    let all = "`doorbell providers` lists all senders; for one that is not there take `hmac` or `bearer`.";
    if near.is_empty() { all.to_owned() } else { format!("Did you mean {}? {all}", near.join(" or ")) }
}

/// Who makes what the source's secret is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SecretFrom {
    /// We do: a text that both sides share.
    Us,
    /// The sender: a public key, or what names its events.
    Sender,
    /// The sender, which hands it over to the server itself.
    Pairing,
    /// Nothing is checked.
    Nobody,
}

/// Senders that a person is asked about.
fn offered() -> impl Iterator<Item = &'static Arc<Preset>> {
    provider::presets().values().filter(|preset| !GENERAL.contains(&preset.id.as_str()))
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
    /// Like the others, in a directory that is its owner's alone.
    Private,
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
            Kind::Plain | Kind::Program | Kind::Private => {
                match self.kind {
                    Kind::Private => private::prepare(parent)?,
                    _ => fs::create_dir_all(parent).with_context(told)?,
                }
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
    let from = sender.secret_from();
    let secret = match from {
        SecretFrom::Us | SecretFrom::Sender => format!("secret = {{ file = \"secrets/{name}\" }}"),
        SecretFrom::Pairing => format!("# {} hands its secret over: doorbell sources pair {name}", sender.preset.name),
        SecretFrom::Nobody => "# no secret: anybody who reaches this address may ring".to_owned(),
    };
    // A question by GET whether the address is ours: the sender shows a token that was typed in at its side.
    let verify = match sender.shows_a_token() {
        true => format!("verify_token = {{ file = \"secrets/{name}-verify-token\" }}\n"),
        false => String::new(),
    };
    let config = include_str!("init/doorbell.toml")
        .replace("@NAME@", name)
        .replace("@RULE@", &sender.rule())
        .replace("@SECRET@", &secret)
        .replace("@VERIFY@", &verify)
        .replace("@FILTER@", sender.filter())
        .replace("@KEY@", &format!("{:44}", format!("# key = \"{}\"", sender.key())))
        .replace("@SENDER@", &sender.preset.name);
    let mut files = vec![
        File { path: "doorbell.toml".into(), text: config, kind: Kind::Plain, about: "the configuration" },
        File {
            path: "agent.sh".into(),
            text: include_str!("init/agent.sh").into(),
            kind: Kind::Program,
            about: "an agent that works",
        },
    ];
    if from == SecretFrom::Us {
        files.push(File {
            path: format!("secrets/{name}").into(),
            text: format!("{}\n", sender.secret()?),
            kind: Kind::Secret,
            about: "a fresh webhook secret, mode 0600",
        });
    }
    if sender.shows_a_token() {
        files.push(File {
            path: format!("secrets/{name}-verify-token").into(),
            text: format!("{}\n", private::random_text().context("no random numbers")?),
            kind: Kind::Secret,
            about: "a fresh verify token, mode 0600",
        });
    }
    files.push(File {
        path: "secrets/.gitignore".into(),
        text: "*\n".into(),
        kind: Kind::Private,
        about: "keeps the secrets out of git",
    });
    Ok(files)
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

    /// What a person does who follows the first of the next steps.
    fn follow(dir: &Path, sender: &Sender) {
        if sender.secret_from() == SecretFrom::Sender {
            let good = sender.preset.vectors.iter().find(|v| v.refused.is_none()).unwrap();
            private::write(&dir.join("secrets").join(&sender.preset.id), &good.secrets[0]).unwrap();
        }
        if steps::before(sender).contains("are meant for it") {
            let config = dir.join("doorbell.toml");
            let text = fs::read_to_string(&config).unwrap();
            fs::write(config, text.replace("# public_url", "public_url")).unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_written_for_every_sender_passes_the_check_with_a_warning_only_where_its_rule_is_unconfirmed() {
        let world = world();
        for (id, preset) in provider::presets() {
            let dir = tempfile::tempdir().unwrap();
            run(args(dir.path(), Some(id)), Env::new()).await.unwrap();
            let sender = Sender::named(id).unwrap();
            let told = steps::next(dir.path(), &sender);
            let has_secret = dir.path().join("secrets").join(id).exists();
            assert_eq!(has_secret, sender.secret_from() == SecretFrom::Us, "{id}");
            let awaits = told.contains(&format!("put into secrets/{id}: "));
            assert_eq!(awaits, sender.secret_from() == SecretFrom::Sender, "{told}");
            follow(dir.path(), &sender);
            let (text, warnings) = checked(dir.path(), &world);
            let is_unconfirmed = preset.confidence == Confidence::Secondary;
            let count = |text: &str| warnings.iter().filter(|w| w.contains(text)).count();
            let (unsure, url, open) = (count("from third parties only"), count("signs the URL"), count("anybody"));
            let signs_url = preset.signs_public_url();
            assert_eq!((unsure, url), (usize::from(is_unconfirmed), usize::from(signs_url)), "{id}: {warnings:?}");
            // Which topic it is about, only its owner knows.
            let topic = usize::from(id == "websub");
            assert_eq!(count("without `verify_token`"), topic, "{id}: {warnings:?}");
            let all = unsure + url + open + topic;
            assert_eq!((open, warnings.len()), (usize::from(id == "none"), all), "{id}: {warnings:?}");
            let asks = ["meta", "strava"].contains(&id.as_str());
            assert_eq!(dir.path().join("secrets").join(format!("{id}-verify-token")).exists(), asks, "{id}");
            assert_eq!(text.contains("\nfilter = 'event.type != \"ping\"'"), id == "github", "{text}");
            assert!(told.contains(&format!("/hooks/{id}")), "{told}");
            assert_eq!(
                told.contains("set public_url in doorbell.toml: "),
                signs_url || id == "google-pubsub",
                "{told}"
            );
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
