//! A real agent: an HTTP server that remembers what reached it, and answers in the ways that a proxy may get wrong.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures::StreamExt as _;
use http::HeaderMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

/// What reached the agent.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}")).to_str().unwrap()
    }
}

pub struct Upstream {
    pub addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Lets `/stream` go on.
    pub go_on: Arc<Notify>,
}

/// `{"message":"Success"}` as gzip wrote it.
#[rustfmt::skip]
pub const GZIPPED: &[u8] = &[
    31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 171, 86, 202, 77, 45, 46, 78, 76, 79, 85,
    178, 82, 10, 46, 77, 78, 6, 114, 148, 106, 1, 101, 215, 215, 97, 21, 0, 0, 0,
];

impl Upstream {
    pub async fn start() -> Self {
        let (seen, go_on) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (noted, gate) = (Arc::clone(&seen), Arc::clone(&go_on));
        let app = axum::Router::new().fallback(move |request: Request| {
            let (noted, gate) = (Arc::clone(&noted), Arc::clone(&gate));
            async move {
                let (head, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 64 << 20).await.unwrap().to_vec();
                let path = head.uri.path().to_owned();
                noted.lock().unwrap().push(Seen {
                    method: head.method.to_string(),
                    target: head.uri.to_string(),
                    headers: head.headers,
                    body,
                });
                answer(&path, gate).await
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { addr, seen, go_on }
    }

    pub fn url(&self) -> String {
        format!("http://{}/base", self.addr)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn last(&self) -> Seen {
        self.seen().pop().expect("nothing reached the agent")
    }
}

async fn answer(path: &str, gate: Arc<Notify>) -> Response {
    let response = Response::builder();
    let piece = |text: &'static str| Ok::<_, std::io::Error>(text);
    match path.rsplit('/').next().unwrap() {
        "teapot" => response
            .status(418)
            .header("x-own", "1")
            .header("connection", "x-inner")
            .header("x-inner", "nobody's business")
            .header("keep-alive", "timeout=5")
            .body("no coffee".into()),
        "gzip" => response
            .header("content-type", "application/json")
            .header("content-encoding", "gzip")
            .header("content-length", GZIPPED.len())
            .body(GZIPPED.into()),
        "stream" => {
            let later = futures::stream::once(async move {
                gate.notified().await;
                piece("two\n")
            });
            response.body(Body::from_stream(futures::stream::iter([piece("one\n")]).chain(later)))
        }
        "stall" => {
            let never = futures::stream::pending();
            response.body(Body::from_stream(futures::stream::iter([piece("one\n")]).chain(never)))
        }
        "slow" => std::future::pending().await,
        "redirect" => response.status(302).header("location", "http://192.0.2.1/").body(Body::empty()),
        _ => response.header("content-type", "application/json").body(r#"{"message":"Success"}"#.into()),
    }
    .unwrap()
}

/// An agent that takes a request and hangs up, or answers half.
pub async fn breaking(answer: &'static str) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut some = [0; 4096];
            let _ = socket.read(&mut some).await;
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    addr
}
