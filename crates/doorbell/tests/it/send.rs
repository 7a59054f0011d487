//! `doorbell send` for every sender there is: what `init` writes is served, and a sample of it is taken; or it is said
//! beforehand that only the sender can sign, and nothing is sent. Whoever adds a preset whose sample does not work sees
//! it here.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::sync::Mutex;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use doorbell_core::provider::{self, Preset, Signer};
use serde_json::Value;

use crate::program;
use crate::world::{Door, HttpAgent};

/// Programs that run beside each other: more would only wait for the two cores.
const PARALLEL: usize = 4;

fn doorbell(dir: &Path, args: &[&str]) -> Output {
    program::call(dir, &[("NO_COLOR", "1")], args, "")
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
            // The server gets its secret from the sender, and opens it for nobody.
            Signer::Secret if preset.pairing.is_some() => {
                let told = said.contains("has not handed over the secret") && said.contains("Nothing was sent.");
                out.status.code() == Some(1) && stored == 0 && told
            }
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

/// A key pair: the private half in PEM, and the public one as its bytes and as DER.
struct Pair {
    pem: String,
    raw: Vec<u8>,
    der: Vec<u8>,
}

fn pem(pkcs8: &[u8]) -> String {
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(pkcs8))
}

fn ed25519() -> Pair {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    Pair { pem: pem(pkcs8.as_ref()), raw: pair.public_key().as_ref().to_vec(), der: Vec::new() }
}

fn ecdsa() -> Pair {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).unwrap();
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    Pair { pem: pem(pkcs8.as_ref()), raw: Vec::new(), der: der.as_ref().to_vec() }
}

fn rsa() -> Pair {
    let pair = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
    let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    Pair { pem: pem(pkcs8.as_ref()), raw: Vec::new(), der: der.as_ref().to_vec() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_key_of_one_s_own_signs_beside_the_sender_s() {
    let agent = HttpAgent::start().await;
    let (edwards, curve, primes) = (ed25519(), ecdsa(), rsa());
    let senders = [
        ("discord-interactions", hex::encode(&edwards.raw), &edwards),
        ("telnyx", STANDARD.encode(&edwards.raw), &edwards),
        ("sendgrid", STANDARD.encode(&curve.der), &curve),
        ("wise", STANDARD.encode(&primes.der), &primes),
        ("gong", STANDARD.encode(&primes.der), &primes),
    ];
    let mut config = format!(
        "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\npublic_url = \"https://door.example.com\"\n\
         [agents.worker]\nrunner = \"http\"\nurl = \"{}\"\n",
        agent.url()
    );
    for (id, ..) in &senders {
        config += &format!(
            "[triggers.{id}]\nagent = \"worker\"\nprovider = \"{id}\"\n\
             secret = [{{ file = \"{id}.theirs\" }}, {{ file = \"{id}.mine\" }}]\n"
        );
    }
    let mut door = Door::prepare(&config);
    for (id, mine, pair) in &senders {
        let good = provider::get(id).unwrap().vectors.iter().find(|v| v.refused.is_none()).unwrap();
        write_secret(&door.path().join(format!("{id}.theirs")), &good.secrets[0]);
        write_secret(&door.path().join(format!("{id}.mine")), mine);
        write_secret(&door.path().join(format!("{id}.pem")), &pair.pem);
    }
    door.launch().await;
    for (id, ..) in &senders {
        let sent = doorbell(door.path(), &["send", id, "--key", &format!("{id}.pem")]);
        assert!(sent.status.success(), "{id}: {}{}", text(&sent.stdout), text(&sent.stderr));
        assert_eq!(door.all(&format!("/events?source={id}")).await.len(), 1, "{id}");
    }
    // A public key is none to sign with, and a proof that is given is sent as it is.
    let public = doorbell(door.path(), &["send", "wise", "--key", "wise.mine"]);
    assert!(!public.status.success() && text(&public.stderr).contains("PKCS#8"), "{}", text(&public.stderr));
    assert!(door.all("/decisions?kind=rejected").await.is_empty());
    let forged = doorbell(door.path(), &["send", "wise", "--header", "x-signature-sha256: AAAA"]);
    assert!(!forged.status.success() && text(&forged.stdout).contains("401"), "{}", text(&forged.stdout));
    assert_eq!(door.all("/decisions?source=wise&kind=rejected").await.len(), 1);
}

const OTHERS: &str = r#"
[triggers.payments]
agent = "worker"
provider = "mercado-pago"
secret = { env = "TEST_SECRET" }
[triggers.board]
agent = "worker"
provider = "linear"
secret = { env = "TEST_SECRET" }
[triggers.mesh]
agent = "worker"
auth = "client-cert"
client_cert = { form = "xfcc", sans = ["dns:partner.example"] }
[triggers.inbox]
agent = "worker"
auth = "contract"
[contracts.almyty.serve.helper]
trigger = "inbox"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_may_be_given_and_what_only_others_hold_is_not_guessed() {
    let agent = HttpAgent::start().await;
    let config = format!(
        "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\ntrusted_proxies = [\"127.0.0.1\"]\n\
         [agents.worker]\nrunner = \"http\"\nurl = \"{}\"\n{OTHERS}",
        agent.url()
    );
    let door = Door::start(&config).await;
    std::fs::write(
        door.path().join("old.json"),
        r#"{"webhookTimestamp":1600000000000,"type":"Issue","action":"create"}"#,
    )
    .unwrap();
    for args in [&["payments", "--query", "data.id=PAY_9", "--query", "a=b c"][..], &["board", "--data", "old.json"]] {
        let sent = doorbell(door.path(), &[&["send"], args].concat());
        assert!(sent.status.success(), "{args:?}: {}{}", text(&sent.stdout), text(&sent.stderr));
    }
    let paid = door.all("/events?source=payments").await;
    assert_eq!((paid.len(), paid[0]["subject"].as_str()), (1, Some("PAY_9")));
    assert_eq!(door.all("/events?source=board").await.len(), 1);
    let contract = doorbell(door.path(), &["send", "inbox"]);
    let told = text(&contract.stderr);
    assert_eq!(contract.status.code(), Some(1));
    assert!(told.contains("wire contract") && told.contains("POST /agents/ID/webhook"), "{told}");
    assert!(door.all("/decisions?source=inbox").await.is_empty());
    // What a proxy tells nobody else can tell, but for a person who stands where the proxy does.
    let bare = doorbell(door.path(), &["send", "mesh"]);
    assert!(
        bare.status.code() == Some(1) && text(&bare.stderr).contains("a trusted proxy tells"),
        "{}",
        text(&bare.stderr)
    );
    assert!(door.all("/decisions?source=mesh").await.is_empty());
    let hash = "ab".repeat(32);
    let told = format!("x-forwarded-client-cert: Hash={hash};DNS=partner.example");
    let told = doorbell(door.path(), &["send", "mesh", "--header", &told]);
    assert!(told.status.success(), "{}{}", text(&told.stdout), text(&told.stderr));
}

#[test]
fn a_sender_that_wants_one_text_cannot_be_promised_a_result() {
    let dir = tempfile::tempdir().unwrap();
    let config = "[agents.a]\nrunner = \"process\"\ncommand = [\"cat\"]\n\
                  [triggers.signed]\nagent = \"a\"\nprovider = \"dropbox-sign\"\nsecret = { env = \"TEST_SECRET\" }\n";
    std::fs::write(dir.path().join("doorbell.toml"), config).unwrap();
    let good = doorbell(dir.path(), &["check"]);
    assert!(good.status.success(), "{}{}", text(&good.stdout), text(&good.stderr));
    std::fs::write(dir.path().join("doorbell.toml"), format!("{config}respond = \"result\"\n")).unwrap();
    let wrong = doorbell(dir.path(), &["check"]);
    let told = text(&wrong.stdout) + &text(&wrong.stderr);
    assert!(!wrong.status.success() && told.contains("one text alone for a yes"), "{told}");
}
