//! The keys of the configuration that take one of a few words.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::Spanned;
use toml::de::DeValue;

use super::super::section::{Here, Value};

/// A key with a fixed set of words.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every word, in the order of the documentation.
            pub const WORDS: &'static [&'static str] = &[$($word),+];
            /// As it is written.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl Value for $name {
            fn read(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<Self> {
                let Some(text) = value.get_ref().as_str() else {
                    here.wrong_type(value, &format!("one of \"{}\"", Self::WORDS.join("\", \"")));
                    return None;
                };
                match text {
                    $($word => Some(Self::$variant),)+
                    _ => {
                        let advice = match doorbell_core::spelling::nearest(text, Self::WORDS.iter().copied()) {
                            Some(near) => format!("Did you mean \"{near}\"?"),
                            None => format!("Use one of \"{}\".", Self::WORDS.join("\", \"")),
                        };
                        here.wrong(value.span().start, format!("`{text:.80}` is not a word for this"), advice);
                        None
                    }
                }
            }
        }

        schema!($name, stringify!($name), {"enum": [$($word),+]});
    )+};
}

words! {
    /// How a webhook's sender proves itself, where no provider says.
    Auth {
        /// A token behind `Bearer` in `Authorization`.
        Bearer = "bearer",
        /// An HMAC of the body in a header.
        Hmac = "hmac",
        /// Name and password.
        Basic = "basic",
        /// A token in a header.
        ApiKey = "api-key",
        /// A client certificate that a trusted proxy has checked (`client_cert`).
        ClientCert = "client-cert",
        /// A token as the last part of the path.
        PathToken = "path-token",
        /// As the wire contract says that rings the trigger; the secret is made there (`almyty`, `agentex`).
        Contract = "contract",
        /// Not at all.
        None = "none",
    }
    /// Who is let by without a proof, where a contract's document needs none.
    ContractAuth {
        /// Everybody.
        None = "none",
        /// Whoever asks on this machine.
        Loopback = "loopback",
    }
    /// Who may register agents over a contract.
    RegisterWord {
        /// Holders of the admin token, or of an API key with the scope `register`.
        Token = "token",
        /// Also whoever asks on this machine.
        Loopback = "loopback",
    }
    /// How a proxy tells of its client's certificate.
    ClientCertForm {
        /// As Envoy does, in one header.
        Xfcc = "xfcc",
        /// Each in a header of its own, as nginx, `HAProxy` and Apache do.
        Headers = "headers",
        /// The certificate itself.
        Certificate = "certificate",
    }
    /// How events come in.
    SourceKind {
        /// Over our HTTP ingress.
        Webhook = "webhook",
        /// Through the API or the library.
        Event = "event",
        /// By the clock.
        Schedule = "schedule",
        /// From Redis.
        Redis = "redis",
        /// From NATS.
        Nats = "nats",
        /// From AMQP.
        Amqp = "amqp",
        /// From a directory.
        File = "file",
        /// From the bus.
        Message = "message",
        /// From another agent.
        A2a = "a2a",
    }
    /// What the sender of an accepted event is answered.
    RespondWord {
        /// 202 at once.
        Accepted = "accepted",
        /// The result, if it comes in time.
        Result = "result",
    }
    /// What a redelivery does when the run failed for good.
    OnDuplicateFailedWord {
        /// Answers with the failed run.
        Answer = "answer",
        /// Retries it.
        Retry = "retry",
    }
    /// What happens to an event that comes while all places are taken.
    WhenFullWord {
        /// Queue it.
        Hold = "hold",
        /// 429.
        Reject = "reject",
    }
    /// Which recipe of Aether Forge's page an endpoint follows.
    PatternWord {
        /// One tick for each request, with its result.
        Trigger = "trigger",
        /// GitHub's events, answered in words.
        Github = "github",
    }
    /// Whether the next of a lane goes by a run that waits.
    PassWord {
        /// No.
        Block = "block",
        /// Yes.
        Pass = "pass",
    }
}
