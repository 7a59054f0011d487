//! Scale Agentex: keys as its document's curl lines make them, and requests passed on to a real agent.

mod forward;
mod keys;
mod queued;
mod register;
pub mod upstream;

use aws_lc_rs::hmac;
use doorbell_core::Clock;
use serde_json::{Value, json};

use super::{Said, send};
use crate::world::{Door, HttpAgent, TOKEN};
use upstream::Upstream;

/// Agents in every way that there is, with `MORE` below the contract's own table.
const RULES: &str = r#"
[triggers.queued]
agent = "worker"
auth = "contract"

[triggers.own-check]
agent = "worker"
provider = "github"
secret = { env = "TEST_SECRET" }

[contracts.agentex]
MORE

[contracts.agentex.agents.reviewer]
acp_url = "UPSTREAM"
secret = { env = "TEST_SECRET" }

[contracts.agentex.agents.slow]
acp_url = "UPSTREAM"
timeout = "300ms"
max_concurrent = 1

[contracts.agentex.agents.gone]
acp_url = "http://GONE"

[contracts.agentex.agents.breaking]
acp_url = "http://BREAKING"

[contracts.agentex.agents.cutting]
acp_url = "http://CUTTING"

[contracts.agentex.agents.limited]
acp_url = "UPSTREAM"
rate_limit = "1/h"
failed_auth_limit = "1/h"
max_body = "1 kiB"

[contracts.agentex.agents.worker]
acp_url = "UPSTREAM"

[contracts.agentex.agents.far]
acp_url = "UPSTREAM"
allowed_sources = ["192.0.2.1"]

[contracts.agentex.agents.queue]
trigger = "queued"

[contracts.agentex.agents.own-check]
trigger = "own-check"
"#;

pub struct World {
    pub door: Door,
    pub agent: Upstream,
    pub worker: HttpAgent,
}

impl World {
    pub async fn start(more: &str) -> Self {
        let (agent, worker) = (Upstream::start().await, HttpAgent::start().await);
        let breaking = upstream::breaking("").await;
        let cutting = upstream::breaking("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
        let rules = RULES
            .replace("MORE", more)
            .replace("UPSTREAM", &agent.url())
            .replace("GONE", &crate::world::free_addr().to_string())
            .replace("BREAKING", &breaking.to_string())
            .replace("CUTTING", &cutting.to_string())
            .replace("1 kiB", "1 KiB");
        let door = Door::start(&super::config(&worker, &rules)).await;
        Self { door, agent, worker }
    }

    pub fn base(&self) -> String {
        self.door.url("")
    }

    pub async fn send(&self, request: &str) -> Said {
        send(&self.door.http, &self.base(), request).await
    }

    /// Makes a key as the owner; its value.
    pub async fn key(&self, new: Value) -> String {
        let request = format!("POST /agent_api_keys\nContent-Type: application/json\nx-api-key: {TOKEN}\n\n{new}");
        let said = self.send(&request).await;
        assert_eq!(said.status, 200, "{}", said.text);
        said.json()["api_key"].as_str().unwrap().to_owned()
    }

    pub async fn external(&self, agent: &str) -> String {
        self.key(json!({ "agent_name": agent, "name": "ours" })).await
    }
}

pub fn mac(secret: &str, text: &str) -> String {
    hex::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes()).as_ref())
}

pub fn now() -> i64 {
    Clock::system().now().secs()
}

/// A delivery of GitHub's to an agent.
pub fn github(agent: &str, secret: &str, content_type: &str, body: &str) -> String {
    format!(
        "POST /agents/forward/name/{agent}/code_changes\nContent-Type: {content_type}\nX-GitHub-Event: push\n\
         X-Hub-Signature-256: sha256={}\n\n{body}",
        mac(secret, body)
    )
}

/// A request of Slack's to an agent, signed `at`.
pub fn slack(agent: &str, secret: &str, at: i64, content_type: &str, body: &str) -> String {
    format!(
        "POST /agents/forward/name/{agent}/slack\nContent-Type: {content_type}\nX-Slack-Request-Timestamp: {at}\n\
         X-Slack-Signature: v0={}\n\n{body}",
        mac(secret, &format!("v0:{at}:{body}"))
    )
}

pub fn detail(text: &str) -> Value {
    json!({ "detail": text })
}
