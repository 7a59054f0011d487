//! What only the `http` kind promises: its headers, and what each status means.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use bytes::Bytes;
use doorbell_core::attempt::{Failure, Outcome};
use doorbell_core::ports::Verdict;
use serde_json::{Value, json};

use crate::support::{NOW, Try, build};

pub(crate) async fn serve(app: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    at
}

/// What comes of one fixed answer.
async fn answered(status: u16, headers: &[(&str, &str)], body: &'static str) -> Verdict {
    let status = StatusCode::from_u16(status).unwrap();
    let headers: HeaderMap = headers.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect();
    let at =
        serve(Router::new().route("/", post(move || async move { (status, headers, body).into_response() }))).await;
    Try::new().verdict(&build("http", json!({"url": format!("http://{at}/")}))).await
}

fn failure(verdict: Verdict) -> Failure {
    match verdict {
        Verdict::Ended(Outcome::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_request_is_the_envelope_signed_and_named_after_the_run() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let app = Router::new().route(
        "/in",
        post(move |headers: HeaderMap, body: Bytes| async move { tell.send((headers, body)).await.unwrap() }),
    );
    let at = serve(app).await;
    let settings = json!({
        "url": format!("http://{at}/in?x=1"),
        "secret": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", {"env": "plain"}],
        "headers": {"x-team": "door", "authorization": {"env": "Bearer t"}},
    });
    let one = Try::new();
    assert!(matches!(one.outcome(&build("http", settings)).await, Outcome::Succeeded(_)));
    let (headers, body) = told.recv().await.unwrap();
    let run = one.attempt.envelope.run.id.to_string();
    for (name, value) in [
        ("content-type", "application/json"),
        ("webhook-id", &run),
        ("idempotency-key", &run),
        ("webhook-timestamp", &NOW.secs().to_string()),
        ("doorbell-run-token", "run-token"),
        ("doorbell-api", "http://127.0.0.1:8080"),
        ("x-team", "door"),
        ("authorization", "Bearer t"),
    ] {
        assert_eq!(headers[name], *value, "{name}");
    }
    assert_eq!(headers["webhook-signature"].to_str().unwrap().split(' ').filter(|s| s.starts_with("v1,")).count(), 2);
    let envelope: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(envelope["run"]["id"], *run);
    assert_eq!(envelope["event"]["data"], json!({"n": 1}));
    assert_eq!(envelope["prompt"], "do it");
}

#[tokio::test]
async fn without_a_secret_nothing_is_signed() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let at = serve(
        Router::new().route("/", post(move |headers: HeaderMap| async move { tell.send(headers).await.unwrap() })),
    )
    .await;
    Try::new().outcome(&build("http", json!({"url": format!("http://{at}/")}))).await;
    assert!(!told.recv().await.unwrap().contains_key("webhook-signature"));
}

#[tokio::test]
async fn accepted_means_that_it_will_call_back_unless_it_says_more() {
    assert!(matches!(answered(202, &[], "").await, Verdict::Deferred));
    assert!(matches!(answered(202, &[], r#"{"status":"working"}"#).await, Verdict::Deferred));
    let said = answered(202, &[], r#"{"doorbell":{"status":"succeeded"}}"#).await;
    assert!(matches!(said, Verdict::Ended(Outcome::Succeeded(_))));
}

#[tokio::test]
async fn busy_with_a_time_is_a_snooze_and_without_one_a_retry() {
    for status in [429, 503] {
        match answered(status, &[("retry-after", "7")], "").await {
            Verdict::Ended(Outcome::Snoozed { after, .. }) => assert_eq!(after, Duration::from_secs(7)),
            other => panic!("{other:?}"),
        }
        match answered(status, &[("retry-after", "0")], "").await {
            Verdict::Ended(Outcome::Snoozed { after, .. }) => {
                assert_eq!(after, Duration::from_secs(1), "never a tight loop")
            }
            other => panic!("{other:?}"),
        }
        for headers in [&[][..], &[("retry-after", "-1")], &[("retry-after", "soon")]] {
            assert!(failure(answered(status, headers, "").await).retry, "{status} {headers:?}");
        }
    }
}

#[tokio::test]
async fn the_status_decides_whether_a_failure_is_tried_again() {
    for (status, retry) in
        [(400, false), (401, false), (404, false), (410, false), (422, false), (500, true), (502, true), (504, true)]
    {
        let failure = failure(answered(status, &[], "the\nreason").await);
        assert_eq!(failure.retry, retry, "{status}");
        assert!(
            failure.error.contains(&status.to_string()) && failure.error.contains("the\\nreason"),
            "{}",
            failure.error
        );
    }
    let moved = failure(answered(302, &[("location", "http://127.0.0.1/secret")], "").await);
    assert!(!moved.retry && moved.error.contains("redirect") && !moved.error.contains("secret"), "{}", moved.error);
}

#[tokio::test]
async fn what_an_error_answer_says_was_spent_counts() {
    let failure = failure(answered(500, &[], r#"{"doorbell":{"status":"failed","usage":{"tokens":9}}}"#).await);
    assert_eq!((failure.retry, failure.usage.tokens), (true, Some(9)));
}

#[tokio::test]
async fn nobody_listening_is_tried_again() {
    let at = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let failure = failure(Try::new().verdict(&build("http", json!({"url": format!("http://{at}/")}))).await);
    assert!(failure.retry, "{failure:?}");
}

#[tokio::test]
async fn an_answer_over_the_cap_is_a_failure_for_good() {
    let at = serve(Router::new().route("/", post(|| async { "x".repeat(1025) }))).await;
    let runner = build("http", json!({"url": format!("http://{at}/"), "max_output": "1 KiB"}));
    let failure = failure(Try::new().verdict(&runner).await);
    assert!(!failure.retry && failure.error.contains("max_output"), "{failure:?}");
}
