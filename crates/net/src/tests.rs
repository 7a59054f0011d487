//! The client against a real server on loopback, and against names that lie.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::ConnectInfo;
use axum::response::IntoResponse;
use axum::routing::{any, get};
use reqwest::dns::Resolve;

use super::*;

const LIMITS: FetchLimits = FetchLimits { time_limit: Duration::from_secs(20), max_body: 1024, reach: Reach::Any };

fn get_request(url: &str) -> http::Request<Bytes> {
    http::Request::get(url).body(Bytes::new()).unwrap()
}

async fn serve(app: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await.unwrap();
    });
    address
}

#[tokio::test]
async fn an_answer_comes_back_with_status_headers_and_body() {
    let at = serve(
        Router::new().route("/x", any(|body: Bytes| async move { (http::StatusCode::CREATED, [("a", "b")], body) })),
    )
    .await;
    let request = http::Request::post(format!("http://{at}/x")).body(Bytes::from("hello")).unwrap();
    let answer = Client::new().unwrap().fetch(request, LIMITS).await.unwrap();
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.headers()["a"], "b");
    assert_eq!(answer.body(), "hello");
}

#[tokio::test]
async fn a_redirect_is_returned_and_not_followed() {
    let hits = Arc::new(AtomicUsize::new(0));
    let seen = hits.clone();
    let app = Router::new()
        .route("/from", get(|| async { (http::StatusCode::FOUND, [("location", "/to")]).into_response() }))
        .route("/to", get(move || async move { seen.fetch_add(1, Ordering::SeqCst).to_string() }));
    let at = serve(app).await;
    let answer = Client::new().unwrap().fetch(get_request(&format!("http://{at}/from")), LIMITS).await.unwrap();
    assert_eq!(answer.status(), 302);
    assert_eq!(hits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_longer_answer_than_allowed_is_an_error_announced_or_not() {
    let endless = || async {
        let pieces = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 512])));
        axum::body::Body::from_stream(pieces)
    };
    let at =
        serve(Router::new().route("/told", get(|| async { "x".repeat(1025) })).route("/endless", get(endless))).await;
    let client = Client::new().unwrap();
    for path in ["told", "endless"] {
        let got = client.fetch(get_request(&format!("http://{at}/{path}")), LIMITS).await;
        assert!(matches!(got, Err(FetchError::TooLarge { limit: 1024, .. })), "{path}: {got:?}");
    }
}

#[tokio::test]
async fn the_time_limit_covers_an_answer_that_never_comes_and_one_that_never_ends() {
    let dripping =
        || async { axum::body::Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>()) };
    let silent = || async { std::future::pending::<()>().await };
    let at = serve(Router::new().route("/silent", get(silent)).route("/drip", get(dripping))).await;
    let client = Client::new().unwrap();
    for path in ["silent", "drip"] {
        let limits = FetchLimits { time_limit: Duration::from_millis(100), ..LIMITS };
        let got = client.fetch(get_request(&format!("http://{at}/{path}?token=s3cret")), limits).await;
        assert!(matches!(&got, Err(FetchError::TimedOut { host, .. }) if !host.contains("s3cret")), "{path}: {got:?}");
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_no_connection_and_the_url_is_not_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    drop(listener);
    let got =
        Client::new().unwrap().fetch(get_request(&format!("http://{at}/?token=s3cret")), LIMITS).await.unwrap_err();
    assert!(matches!(got, FetchError::Connect { .. }), "{got:?}");
    assert!(!got.to_string().contains("s3cret"), "{got}");
}

#[tokio::test]
async fn connections_are_reused() {
    let at = serve(
        Router::new().route("/", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() })),
    )
    .await;
    let client = Client::new().unwrap();
    let first = client.fetch(get_request(&format!("http://{at}/")), LIMITS).await.unwrap().into_body();
    let second = client.fetch(get_request(&format!("http://{at}/")), LIMITS).await.unwrap().into_body();
    assert_eq!(first, second);
}

#[tokio::test]
async fn a_public_reach_refuses_every_spelling_of_an_inner_address() {
    let at = serve(Router::new().route("/", get(|| async { "inside" }))).await;
    let port = at.port();
    let client = Client::new().unwrap();
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.0.0.1.",
        "localhost",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "169.254.169.254",
        "10.0.0.1",
        "[fd00:ec2::254]",
    ] {
        let limits = FetchLimits { reach: Reach::Public, ..LIMITS };
        let got = client.fetch(get_request(&format!("http://{host}:{port}/")), limits).await;
        assert!(matches!(got, Err(FetchError::Refused(_))), "{host}: {got:?}");
    }
    let any = client.fetch(get_request(&format!("http://localhost:{port}/")), LIMITS).await.unwrap();
    assert_eq!(any.body(), "inside");
}

#[tokio::test]
async fn a_name_that_turns_inwards_is_refused_at_the_next_connection() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let lookup: Lookup = Arc::new(move |_| {
        let n = count.fetch_add(1, Ordering::SeqCst);
        let address = if n == 0 { "8.8.8.8:0" } else { "127.0.0.1:0" };
        Box::pin(async move { Ok(vec![address.parse().unwrap()]) })
    });
    let name = || "rebind.example".parse::<reqwest::dns::Name>().unwrap();
    assert!(Guarded(lookup.clone(), Allowed::default()).resolve(name()).await.is_ok());
    let client = Client::with_lookup(lookup).unwrap();
    let limits = FetchLimits { reach: Reach::Public, ..LIMITS };
    let got = client.fetch(get_request("http://rebind.example/?token=s3cret"), limits).await;
    assert!(
        matches!(&got, Err(FetchError::Refused(why)) if why.contains("rebind.example") && !why.contains("s3cret")),
        "{got:?}"
    );
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn of_mixed_addresses_only_the_public_ones_are_used() {
    let lookup: Lookup = Arc::new(|_| {
        Box::pin(async {
            Ok(vec!["10.0.0.1:0".parse().unwrap(), "8.8.8.8:0".parse().unwrap(), "[::1]:0".parse().unwrap()])
        })
    });
    let resolver = Guarded(lookup, Allowed::default());
    let name = "mixed.example".parse().unwrap();
    let found: Vec<SocketAddr> = resolver.resolve(name).await.unwrap().collect();
    assert_eq!(found, ["8.8.8.8:0".parse().unwrap()]);
}

#[tokio::test]
async fn only_http_without_credentials_is_called() {
    let client = Client::new().unwrap();
    for url in ["ftp://example.com/", "http://user:pw@example.com/", "http://user@example.com/", "file:///etc/passwd"] {
        let Ok(request) = http::Request::get(url).body(Bytes::new()) else { continue };
        let got = client.fetch(request, LIMITS).await;
        assert!(matches!(&got, Err(FetchError::Refused(why)) if !why.contains("pw")), "{url}: {got:?}");
    }
}

#[tokio::test]
async fn a_streamed_answer_is_guarded_like_a_whole_one_and_ends_when_it_stalls_or_is_too_long() {
    let pieces = |then: bool| async move {
        let first = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 600]))]);
        let more = futures::stream::iter(then.then_some(Ok(Bytes::from_static(&[b'y'; 600]))));
        let stalls = futures::stream::pending();
        axum::body::Body::from_stream(first.chain(more).chain(stalls))
    };
    let app = Router::new()
        .route("/stalls", get(move || pieces(false)))
        .route("/long", get(move || pieces(true)))
        .route("/gzip", get(|| async { ([("content-encoding", "gzip")], "as it is") }))
        .route("/silent", get(std::future::pending::<()>))
        .route("/from", get(|| async { (http::StatusCode::FOUND, [("location", "/to")]) }));
    let at = serve(app).await;
    let client = Client::new().unwrap();
    let ask = |path: &str, limits: FetchLimits| {
        let (client, request) = (client.clone(), get_request(&format!("http://{at}/{path}")));
        async move { client.stream(request, limits).await }
    };
    let inner = ask("gzip", FetchLimits { reach: Reach::Public, ..LIMITS }).await;
    assert!(matches!(inner, Err(FetchError::Refused(_))), "an inner address");
    let plain = ask("gzip", LIMITS).await.unwrap();
    assert_eq!(plain.headers()["content-encoding"], "gzip");
    assert_eq!(plain.into_body().next().await.unwrap().unwrap(), "as it is");
    assert_eq!(ask("from", LIMITS).await.unwrap().status(), 302, "not followed");
    let brief = FetchLimits { time_limit: Duration::from_millis(200), ..LIMITS };
    assert!(matches!(ask("silent", brief).await, Err(FetchError::TimedOut { .. })));
    let mut body = ask("stalls", brief).await.unwrap().into_body();
    assert_eq!(body.next().await.unwrap().unwrap().len(), 600);
    assert!(matches!(body.next().await, Some(Err(FetchError::TimedOut { .. }))));
    assert!(body.next().await.is_none(), "nothing follows a fault");
    let sent: Vec<_> = ask("long", LIMITS).await.unwrap().into_body().collect().await;
    assert!(matches!(sent.last(), Some(Err(FetchError::TooLarge { limit: 1024, .. }))), "{sent:?}");
}

#[tokio::test]
async fn a_network_that_the_operator_named_is_reached_and_its_neighbours_are_not() {
    let at = serve(Router::new().route("/", get(|| async { "ok" }))).await;
    let public = FetchLimits { reach: Reach::Public, ..LIMITS };
    let client = Client::new().unwrap();
    let own = client.reaching(&["127.0.0.0/8".parse().unwrap()]).unwrap();
    let other = client.reaching(&["10.0.0.0/8".parse().unwrap()]).unwrap();
    let port = at.port();
    for host in [format!("127.0.0.1:{port}"), format!("localhost:{port}")] {
        let ask = || get_request(&format!("http://{host}/"));
        assert_eq!(own.fetch(ask(), public).await.unwrap().body(), "ok", "{host}");
        assert!(matches!(other.fetch(ask(), public).await, Err(FetchError::Refused(_))), "{host}");
        assert!(matches!(client.fetch(ask(), public).await, Err(FetchError::Refused(_))), "{host}");
    }
    assert!(matches!(own.fetch(get_request("http://10.0.0.1/"), public).await, Err(FetchError::Refused(_))));
}
