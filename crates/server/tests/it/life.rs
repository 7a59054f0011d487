//! Health, readiness, stopping, and TLS.

use std::sync::Arc;
use std::time::Duration;

use doorbell_server::{Phase, Tls};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::net::TcpStream;

use crate::world::{World, hasty, request, short};

#[tokio::test]
async fn health_counts_and_ready_tells_why_not() {
    let world = World::new().await;
    world.call("POST", "/hooks/open", &[], "x").await;
    let health = world.call("GET", "/health", &[], "").await;
    assert_eq!(health.json(), json!({"status":"ok","version":"1.2.3-test","queued":1,"running":0,"waiting":0}));
    assert_eq!(world.call("GET", "/ready", &[], "").await.status, 200);
    world.status.set_reload_fault(Some("line 3: `agnet` is unknown".into()));
    let ready = world.call("GET", "/ready", &[], "").await;
    assert_eq!((ready.status, &ready.json()["config"]), (200, &json!("line 3: `agnet` is unknown")));
    assert_eq!(world.get("/stats").await["config"], "line 3: `agnet` is unknown");
    world.status.set_stopping();
    let stopping = world.call("GET", "/ready", &[], "").await;
    assert_eq!((stopping.status, &stopping.json()["reasons"]), (503, &json!(["stopping"])));
}

#[tokio::test]
async fn a_closed_store_is_not_ready_and_refuses_with_503() {
    let world = World::new().await;
    world.house.store.close().await;
    let ready = world.call("GET", "/ready", &[], "").await;
    assert_eq!(ready.status, 503);
    assert!(ready.json()["reasons"][0].as_str().unwrap().starts_with("store:"), "{}", ready.body);
    let refused = world.call("POST", "/hooks/open", &[], "x").await;
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true));
    let problem = world.api("GET", "/runs", "").await;
    assert_eq!((problem.status, &problem.json()["retry"]), (503, &json!(true)));
    assert_eq!(world.call("GET", "/health", &[], "").await.status, 200, "alive is alive");
}

#[tokio::test]
async fn stopping_lets_the_request_under_way_end_and_closes_the_rest() {
    let world = World::new().await;
    let mut new = world.connect().await;
    let mut idle = world.connect().await;
    idle.write(request("POST", "/hooks/open", &[], "x").as_bytes()).await;
    assert_eq!(idle.answer().await.unwrap().status, 202);
    let mut busy = world.connect().await;
    busy.write(b"POST /hooks/open HTTP/1.1\r\nhost: d\r\ncontent-length: 5\r\n\r\nhel").await;
    // Its head has been read once its body is being waited for; another full exchange gives it the time.
    assert_eq!(world.call("POST", "/hooks/open", &[], "y").await.status, 202);
    world.stop.cancel();
    new.ends().await;
    idle.ends().await;
    busy.write(b"lo").await;
    assert_eq!(busy.answer().await.map(|a| a.status), Some(202));
    busy.ends().await;
    tokio::time::timeout(Duration::from_secs(5), world.serving).await.unwrap().unwrap();
    assert_eq!(world.status.phase(), Phase::Stopping);
    assert!(TcpStream::connect(world.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn stopping_is_bounded_by_the_patience() {
    let mut options = short();
    options.timeouts.body_idle = Duration::from_secs(600);
    options.timeouts.body_total = Duration::from_secs(600);
    let world = World::with(options).await;
    let mut stuck = world.connect().await;
    stuck.write(b"POST /hooks/open HTTP/1.1\r\nhost: d\r\ncontent-length: 5\r\n\r\nhel").await;
    assert_eq!(world.call("POST", "/hooks/open", &[], "y").await.status, 202);
    world.stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), world.serving).await.unwrap().unwrap();
    stuck.ends().await;
}

struct Certificate {
    dir: tempfile::TempDir,
    der: rustls_pki_types::CertificateDer<'static>,
}

fn certificate(into: Option<&Certificate>) -> (Option<tempfile::TempDir>, rustls_pki_types::CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["door".into()]).unwrap();
    let dir = into.is_none().then(|| tempfile::tempdir().unwrap());
    let path = into.map_or_else(|| dir.as_ref().unwrap().path(), |c| c.dir.path());
    std::fs::write(path.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(path.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    (dir, made.cert.der().clone())
}

async fn handshake(
    world: &World,
    trusted: &rustls_pki_types::CertificateDer<'static>,
    alpn: &[u8],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(world.address).await?;
    let name = "door".try_into().unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

#[tokio::test]
async fn tls_speaks_both_protocols_and_changes_its_certificate_without_a_restart() {
    let (dir, der) = certificate(None);
    let first = Certificate { dir: dir.unwrap(), der };
    let (cert, key) = (first.dir.path().join("cert.pem"), first.dir.path().join("key.pem"));
    let tls = Tls::from_pem_files(&cert, &key).unwrap();
    let world = World::tls(short(), Some(tls.clone())).await;

    let stream = handshake(&world, &first.der, b"h2").await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut send, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.unwrap();
    let driving = tokio::spawn(connection);
    let body = http_body_util::Full::new(bytes::Bytes::from_static(b"over h2"));
    let post = http::Request::post("https://door/hooks/open").body(body).unwrap();
    let answer = send.send_request(post).await.unwrap();
    assert_eq!(answer.status(), 202);
    assert!(answer.into_body().collect().await.unwrap().to_bytes().starts_with(b"{\"status\":\"accepted\""));
    drop(send);
    let _ = driving.await;

    let (_, renewed) = certificate(Some(&first));
    tls.reload().unwrap();
    assert!(handshake(&world, &first.der, b"http/1.1").await.is_err(), "the old certificate is gone");
    let mut stream = handshake(&world, &renewed, b"http/1.1").await.unwrap();
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stream.write_all(b"POST /hooks/open HTTP/1.0\r\ncontent-length: 1\r\n\r\nx").await.unwrap();
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await;
    assert!(text.starts_with(b"HTTP/1.0 202 "), "{}", String::from_utf8_lossy(&text));

    std::fs::write(&cert, "not a certificate").unwrap();
    let error = tls.reload().unwrap_err().to_string();
    assert!(error.contains("cert.pem") && error.contains("certificate chain"), "{error}");
    assert!(handshake(&world, &renewed, b"http/1.1").await.is_ok(), "the one before stays");
}

#[tokio::test]
async fn a_slow_handshake_is_cut() {
    let (dir, _) = certificate(None);
    let dir = dir.unwrap();
    let tls = Tls::from_pem_files(&dir.path().join("cert.pem"), &dir.path().join("key.pem")).unwrap();
    let world = World::tls(hasty(), Some(tls)).await;
    let mut client = world.connect().await;
    client.write(&[0x16, 0x03, 0x01]).await;
    client.ends().await;
}
