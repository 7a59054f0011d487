//! `doorbell send` for every sender there is: what `init` writes is served, and a sample of it is taken; or it is said
//! beforehand that only the sender can sign, and nothing is sent. Whoever adds a preset whose sample does not work sees
//! it here.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use doorbell_core::provider::{self, Preset, Signer};
use serde_json::Value;

use crate::world::{Door, HttpAgent, TOKEN};

/// Programs that run beside each other: more would only wait for the two cores.
const PARALLEL: usize = 4;

fn doorbell(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_doorbell"))
        .args(args)
        .current_dir(dir)
        .env("DOORBELL_ADMIN_TOKEN", TOKEN)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Does it to every preset, some at a time; what came of it by the preset's id.
fn each<T: Send>(act: impl Fn(&'static Preset) -> T + Sync) -> BTreeMap<&'static str, T> {
    let waiting: Mutex<Vec<&'static Preset>> = Mutex::new(provider::presets().values().map(AsRef::as_ref).collect());
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                loop {
                    let Some(preset) = waiting.lock().unwrap().pop() else { return };
                    let came = act(preset);
                    done.lock().unwrap().insert(preset.id.as_str(), came);
                }
            });
        }
    });
    done.into_inner().unwrap()
}

/// `doorbell init`, and what it asks a person to do first.
fn set_up(home: &Path, preset: &Preset) {
    let id = preset.id.as_str();
    let made = doorbell(home, &["init", id, "--provider", id, "-y"]);
    let told = text(&made.stdout);
    assert!(made.status.success(), "{id}: {told}{}", text(&made.stderr));
    let dir = home.join(id);
    if told.contains(&format!("put into secrets/{id}: ")) {
        let good = preset.vectors.iter().find(|v| v.refused.is_none()).unwrap();
        write_secret(&dir.join("secrets").join(id), &good.secrets[0]);
    }
    if told.contains("set public_url in doorbell.toml: ") {
        let config = std::fs::read_to_string(dir.join("doorbell.toml")).unwrap();
        std::fs::write(dir.join("doorbell.toml"), config.replace("# public_url", "public_url")).unwrap();
    }
}

fn write_secret(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// The sources and triggers that `init` wrote, for one server.
fn all_in_one(home: &Path, agent: &HttpAgent) -> String {
    let mut config = format!(
        "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\npublic_url = \"https://door.example.com\"\n\
         [agents.example]\nrunner = \"http\"\nurl = \"{}\"\n",
        agent.url()
    );
    for id in provider::presets().keys() {
        let dir = home.join(id);
        let own = std::fs::read_to_string(dir.join("doorbell.toml")).unwrap();
        let from = own.find("# Who rings: ").unwrap();
        config.push_str(&own[from..].replace("file = \"", &format!("file = \"{}/", dir.display())));
    }
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_of_every_sender_is_taken_or_it_is_said_why_none_can_be_sent() {
    let agent = HttpAgent::start().await;
    let home = tempfile::tempdir().unwrap();
    each(|preset| set_up(home.path(), preset));
    let door = Door::start(&all_in_one(home.path(), &agent)).await;
    let sent = each(|preset| {
        let id = preset.id.as_str();
        doorbell(home.path(), &["send", id, "-c", &format!("{id}/doorbell.toml"), "--url", &door.url("")])
    });
    let mut events: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for event in door.all("/events").await {
        events.entry(event["source"].as_str().unwrap().to_owned()).or_default().push(event);
    }
    let mut wrong = Vec::new();
    for (id, out) in &sent {
        let preset = provider::get(id).unwrap();
        let stored = events.get(*id).map_or(0, Vec::len);
        let said = format!("{}{}", text(&out.stdout), text(&out.stderr));
        let is_good = match preset.signer() {
            Signer::Secret => out.status.success() && stored == 1,
            Signer::PrivateKey | Signer::SenderAlone(_) => {
                let told =
                    said.contains(&format!("cannot sign as {}", preset.name)) && said.contains("Nothing was sent.");
                out.status.code() == Some(1) && stored == 0 && told
            }
        };
        if !is_good {
            wrong.push(format!("{id}: {}, {stored} events: {said}", out.status));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), sent.len(), wrong.join("\n"));
    let refused = door.all("/decisions?kind=rejected").await;
    assert_eq!(refused, Vec::<Value>::new(), "what cannot be signed is not sent");
}
