//! Carries the script out: sends each delivery over HTTP as its sender would, watches through the API what becomes of it,
//! and says where that differs from the script.

use std::time::Duration;

use anyhow::{Result, anyhow};
use bytes::Bytes;
use doorbell_core::run::State;
use doorbell_core::source::SecretPlace;
use doorbell_core::{Name, Secret};
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::Context;
use super::super::client::Client;
use super::super::samples;
use super::super::send::{Letter, fresh_id, sealed};
use super::super::table::{member, text};
use super::house::House;
use super::script::{Act, Becomes, SCRIPT, What};
use crate::config::Sender;

/// One delivery and what became of it so far.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    /// Its delivery id and body, to send it again.
    sent: (String, Bytes),
    /// The answer's status.
    pub status: u16,
    /// How long the answer took.
    pub answered_in: Option<Duration>,
    /// The event's id.
    pub event_id: Option<String>,
    /// The run's id: of a duplicate the first one's.
    pub run_id: Option<String>,
    /// What the door said.
    pub decision: Option<String>,
    /// The decision's id.
    pub decision_id: Option<String>,
    /// Why.
    pub reason: String,
    /// The run, as the API shows it; none where there should be none.
    pub run: Option<Value>,
    runs: bool,
}

impl Scene {
    /// Where its run stands.
    pub(super) fn state(&self) -> Option<State> {
        self.run.as_ref().and_then(|run| text(run, "state").parse().ok())
    }

    /// Whether nothing more is to come.
    pub(super) fn is_over(&self) -> bool {
        self.decision.is_some() && (!self.runs || self.state().is_some_and(State::is_final))
    }
}

/// See the module.
pub(super) struct Stage<'s> {
    house: &'s House,
    client: &'s Client,
    cx: &'s Context,
}

impl<'s> Stage<'s> {
    /// In this house.
    pub(super) fn new(house: &'s House, cx: &'s Context) -> Self {
        Self { house, client: &house.client, cx }
    }

    /// Sends one delivery and takes its answer.
    ///
    /// # Errors
    /// If it cannot be signed or the server is not reachable.
    pub(super) async fn send(&self, act: &Act, before: &[Scene]) -> Result<Scene> {
        let mut sender = self.sender(act.source)?.clone();
        if act.what == What::Forged {
            sender.secret = Some(SecretPlace::Given(Secret::new("not the secret of this source")));
        }
        let repeated = before.first().filter(|_| act.what == What::FirstAgain).map(|first| first.sent.clone());
        let mut sample = samples::of(&sender.preset, None, &fresh_id(self.cx))
            .map_err(|_| anyhow!("there is no sample of {}", sender.preset.name))?;
        if act.what == What::Unwanted {
            sample.body["action"] = json!("closed");
        }
        let (id, body) = repeated.unwrap_or_else(|| (fresh_id(self.cx), Bytes::from(sample.body.to_string())));
        let letter = Letter {
            id: &id,
            event_type: &sample.event_type,
            headers: HeaderMap::new(),
            query: &[],
            key: None,
            body: body.clone(),
        };
        let delivery = sealed(self.client, &sender, None, letter, self.cx)?;
        let began = Instant::now();
        let answer = self.client.ring(delivery).await?;
        let answered_in = Some(began.elapsed());
        let said = answer.json();
        let id_of = |name: &str| member(&said, name).and_then(Value::as_str).map(str::to_owned);
        Ok(Scene {
            sent: (id, body),
            status: answer.status.as_u16(),
            answered_in,
            event_id: id_of("event_id"),
            run_id: id_of("run_id"),
            decision: None,
            decision_id: None,
            reason: String::new(),
            run: None,
            runs: matches!(act.becomes, Becomes::Run { .. }),
        })
    }

    fn sender(&self, source: &str) -> Result<&Sender> {
        let senders = &self.house.resolved.senders;
        Name::new(source)
            .ok()
            .and_then(|name| senders.get(&name))
            .ok_or_else(|| anyhow!("the demo has no source `{source}`"))
    }

    /// Brings every scene up to date.
    ///
    /// # Errors
    /// What the API says.
    pub(super) async fn look(&self, script: &[Act], scenes: &mut [Scene]) -> Result<()> {
        for (act, scene) in script.iter().zip(scenes) {
            if scene.decision.is_none() {
                self.look_at_decision(act, scene).await?;
            }
            let Some(run) = scene.run_id.as_ref().filter(|_| scene.runs && !scene.is_over()) else { continue };
            scene.run = Some(self.client.get(&format!("runs/{run}"), &[]).await?);
        }
        Ok(())
    }

    /// The newest decision on the event; without an event the newest refusal of the source. Refusals are written behind,
    /// so it may take a moment to be there.
    async fn look_at_decision(&self, act: &Act, scene: &mut Scene) -> Result<()> {
        let about = match &scene.event_id {
            Some(event) => ("event", event.clone()),
            None => ("source", act.source.to_owned()),
        };
        let wanted = act.becomes.decision();
        let found = self.client.get("decisions", &[about, ("kind", wanted.to_owned())]).await?;
        if let Some(decision) = found.get("items").and_then(|items| items.get(0)) {
            scene.decision = Some(text(decision, "kind"));
            scene.decision_id = Some(text(decision, "id"));
            scene.reason = text(decision, "reason");
        }
        Ok(())
    }

    /// Whether there are as many runs as there should be: a forged, repeated or filtered delivery must not have made one.
    ///
    /// # Errors
    /// What the API says.
    pub(super) async fn count_faults(&self, scenes: &[Scene]) -> Result<Vec<String>> {
        let runs = self.client.get("runs", &[("limit", "100".to_owned())]).await?;
        let count = runs.get("items").and_then(Value::as_array).map_or(0, Vec::len);
        let wanted = super::script::runs();
        debug_assert_eq!(scenes.len(), SCRIPT.len());
        Ok(if count == wanted { Vec::new() } else { vec![format!("there are {count} runs instead of {wanted}")] })
    }
}

/// Where a scene differs from what the script says.
pub(super) fn faults(act: &Act, scene: &Scene, scenes: &[Scene]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut compare = |what: &str, seen: String, wanted: String| {
        if seen != wanted {
            faults.push(format!("{what} is {seen} instead of {wanted}"));
        }
    };
    let or_none = |t: Option<&str>| t.unwrap_or("missing").to_owned();
    compare("the answer", scene.status.to_string(), act.becomes.status().to_string());
    compare("the decision", or_none(scene.decision.as_deref()), act.becomes.decision().to_owned());
    match act.becomes {
        Becomes::Run { attempts, result } => {
            let run = scene.run.clone().unwrap_or_default();
            compare("the run", or_none(scene.state().map(State::as_str)), State::Succeeded.as_str().to_owned());
            compare("the number of attempts", text(&run, "attempt"), attempts.to_string());
            let output = text(&run, "output");
            if !output.starts_with(result) {
                compare("the result", format!("`{}`", output.trim()), format!("`{result}…`"));
            }
        }
        Becomes::Duplicate => {
            let first = scenes.first();
            compare(
                "its event",
                or_none(scene.event_id.as_deref()),
                or_none(first.and_then(|f| f.event_id.as_deref())),
            );
            compare("its run", or_none(scene.run_id.as_deref()), or_none(first.and_then(|f| f.run_id.as_deref())));
        }
        Becomes::Ignored => compare("its run", or_none(scene.run_id.as_deref()), "missing".to_owned()),
        Becomes::Rejected => compare("its event", or_none(scene.event_id.as_deref()), "missing".to_owned()),
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(act: &Act) -> Scene {
        let Becomes::Run { attempts, result } = act.becomes else { unreachable!() };
        Scene {
            sent: (String::new(), Bytes::new()),
            status: 202,
            answered_in: None,
            event_id: Some("evt_1".into()),
            run_id: Some("run_1".into()),
            decision: Some("accepted".into()),
            decision_id: None,
            reason: String::new(),
            run: Some(json!({"state": "succeeded", "attempt": attempts, "output": result})),
            runs: true,
        }
    }

    #[test]
    fn what_went_as_the_script_says_is_no_fault() {
        assert_eq!(faults(&SCRIPT[0], &scene(&SCRIPT[0]), &[]), Vec::<String>::new());
    }

    #[test]
    fn every_difference_from_the_script_is_told() {
        let mut wrong = scene(&SCRIPT[1]);
        wrong.status = 200;
        wrong.run = Some(json!({"state": "failed", "attempt": 3, "output": null}));
        let told = faults(&SCRIPT[1], &wrong, &[]);
        assert_eq!(
            told,
            [
                "the answer is 200 instead of 202",
                "the run is failed instead of succeeded",
                "the number of attempts is 3 instead of 2",
                "the result is `` instead of `Wrote to the customer…`",
            ]
        );
    }

    #[test]
    fn a_duplicate_with_a_run_of_its_own_is_a_fault() {
        let duplicate = SCRIPT.iter().find(|a| a.becomes == Becomes::Duplicate).unwrap();
        let mut second = scene(&SCRIPT[0]);
        (second.status, second.decision) = (200, Some("duplicate".into()));
        second.run_id = Some("run_2".into());
        assert_eq!(faults(duplicate, &second, &[scene(&SCRIPT[0])]), ["its run is run_2 instead of run_1"]);
    }
}
