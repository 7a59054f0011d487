//! Ways to check a sender that are made of a source's own table, so that no preset stands for them: their pages in
//! `doorbell providers` and in the documentation.

use serde_json::{Value, json};

/// One of them.
pub(super) struct Method {
    /// What `auth` says, or the name of the table.
    pub(super) id: &'static str,
    /// For people.
    pub(super) name: &'static str,
    /// What is checked.
    pub(super) scheme: &'static str,
    /// What else is worth knowing.
    pub(super) notes: &'static str,
    /// What to write.
    pub(super) example: &'static str,
}

/// All of them, by id.
pub(super) const METHODS: [Method; 3] = [
    Method {
        id: "client-cert",
        name: "Client certificate",
        scheme: "client-cert, checked by a trusted proxy in front",
        notes: "The proxy ends TLS, checks the certificate, and tells of it in headers: `xfcc` (Envoy), `headers` (nginx, HAProxy, \
                Apache) or `certificate` (the certificate itself). It has to take these headers out of what its own clients send. \
                Without `subjects`, `sans` or `fingerprints` nobody is let in. Every key: docs/config.md.",
        example: "[server]\ntrusted_proxies = [\"10.0.0.7\"]\n\n[sources.partner]\nkind = \"webhook\"\nauth = \"client-cert\"\n\
                  client_cert = { form = \"xfcc\", sans = [\"uri:spiffe://partner.example/hooks\"] }\n\n\
                  [triggers.partner-events]\nsource = \"partner\"\nagent = \"example\"\n",
    },
    Method {
        id: "contract",
        name: "Wire contract",
        scheme: "by the keys that the contract makes",
        notes: "For triggers that a wire contract rings whose clients bring keys of their own (almyty, Agentex). The trigger's own \
                path lets nobody in. `doorbell contracts` lists what is served; docs/contracts.md says what each one answers.",
        example: "[triggers.tickets]\nagent = \"example\"\nauth = \"contract\"\n\n[contracts.almyty.serve.helpdesk]\n\
                  trigger = \"tickets\"\n",
    },
    Method {
        id: "custom",
        name: "A sender of your own",
        scheme: "as its table says",
        notes: "Describes any sender that signs with HMAC, a public key, a signed token or a token, in the form of the built-in \
                presets: crates/core/presets/providers/README.md tells every key, and the presets beside it are there to copy from.",
        example: "[sources.shop]\nkind = \"webhook\"\nsecret = { env = \"SHOP_SECRET\" }\n\n[sources.shop.custom.verify]\n\
                  scheme = \"hmac\"\nhash = \"sha256\"\nsecret = \"raw\"\nsignature = \"header:x-shop-signature\"\n\
                  encoding = \"hex\"\nsigned = \"{body}\"\n\n[triggers.shop-events]\nsource = \"shop\"\nagent = \"example\"\n",
    },
];

/// The one called `id`.
pub(super) fn get(id: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.id == id)
}

/// Its members, as those of a preset are called.
pub(super) fn describe(method: &Method) -> Value {
    json!({
        "id": method.id, "name": method.name, "scheme": method.scheme, "confidence": "a general method",
        "notes": method.notes, "example": method.example,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{Disk, Input, Purpose, World, resolve};

    #[test]
    fn what_is_to_be_written_is_a_good_configuration() {
        for method in &METHODS {
            let text = format!("{}\n[agents.example]\nrunner = \"process\"\ncommand = [\"true\"]\n", method.example);
            let world = World {
                env: Arc::new(
                    [
                        ("PATH".into(), "/usr/bin:/bin".into()),
                        ("SHOP_SECRET".into(), "0123456789abcdef0123456789abcdef".into()),
                    ]
                    .into(),
                ),
                files: Arc::new(Disk),
                fetch: Arc::new(doorbell_net::Client::new().unwrap()),
                clock: doorbell_core::Clock::system(),
            };
            let base = std::path::Path::new("/");
            let done = resolve(Input { text: &text, file: "doorbell.toml", base, purpose: Purpose::Check }, &world);
            assert!(done.is_ok(), "{}: {:#?}", method.id, done.err());
        }
    }
}
