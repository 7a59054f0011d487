//! Requests that mean harm, or look like it: each gets its answer, its decision, and takes nobody else's place.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;

use crate::world::{Client, World, hasty, request, short, until};

/// What is sent, what must come back (none: the connection ends without an answer), and what the decision says.
type Case = (&'static str, Vec<u8>, Option<u16>, Option<&'static str>);

fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nhost: door\r\n{headers}\r\n{body}").into_bytes()
}

fn cases() -> Vec<Case> {
    let many = |n: usize| (0..n).map(|i| format!("x-{i}: 1\r\n")).collect::<String>();
    let json = "content-type: application/json\r\ncontent-length: 2\r\n";
    let chunked = |chunks: &str| post("/hooks/open", "transfer-encoding: chunked\r\n", chunks);
    let over = format!("{}0\r\n\r\n", "c8\r\n".to_owned() + &"x".repeat(200) + "\r\n").repeat(1);
    let six_hundred = ("c8\r\n".to_owned() + &"x".repeat(200) + "\r\n").repeat(6);
    let nothing = Some("no source listens on");
    vec![
        ("half a head", b"POST /hooks/open HTTP/1.1\r\nhost: do".to_vec(), None, Some("did not come in time")),
        ("nothing at all", Vec::new(), None, None),
        (
            "a giant header",
            post("/hooks/open", &format!("x: {}\r\n", "y".repeat(20_000)), ""),
            Some(431),
            Some("too large"),
        ),
        ("ten thousand headers", post("/hooks/open", &many(10_000), ""), Some(431), Some("too large")),
        ("one header too many", post("/hooks/open", &many(100), ""), Some(431), Some("too many headers")),
        (
            "a giant length, nothing sent",
            post("/hooks/open", "content-length: 999999999999\r\n", ""),
            Some(413),
            Some("longer than the limit"),
        ),
        (
            "a length that is no number",
            post("/hooks/open", "content-length: 12a\r\n", "{}"),
            Some(400),
            Some("not HTTP/1.1"),
        ),
        (
            "two lengths",
            post("/hooks/open", "content-length: 2\r\ncontent-length: 3\r\n", "{}"),
            Some(400),
            Some("not HTTP/1.1"),
        ),
        (
            "a body that stalls",
            post("/hooks/open", "content-length: 100\r\n", "{"),
            Some(400),
            Some("did not come within"),
        ),
        ("chunks beyond the limit", chunked(&six_hundred), Some(413), Some("longer than the limit")),
        ("chunks within the limit", chunked(&over), Some(202), None),
        ("chunks that are none", chunked("zzz\r\n{}\r\n0\r\n\r\n"), Some(400), Some("framing is wrong")),
        (
            "gzip",
            post("/hooks/open", &format!("content-encoding: gzip\r\n{json}"), "{}"),
            Some(415),
            Some("content encoding"),
        ),
        (
            "gzip below the chunks",
            post("/hooks/open", "transfer-encoding: gzip, chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
            Some(501),
            Some("transfer coding"),
        ),
        (
            "gzip below the chunks, on two lines",
            post("/hooks/open", "transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
            Some(501),
            Some("transfer coding"),
        ),
        (
            "gzip below the chunks, for the API",
            post("/api/v1/events", "transfer-encoding: gzip, chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
            Some(501),
            Some("transfer coding"),
        ),
        (
            "chunks in capitals",
            post("/hooks/open", "transfer-encoding: Chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
            Some(202),
            None,
        ),
        ("two hosts", post("/hooks/open", &format!("host: other\r\n{json}"), "{}"), Some(400), Some("one Host header")),
        ("GET", b"GET /hooks/open HTTP/1.1\r\nhost: d\r\n\r\n".to_vec(), Some(405), Some("a GET came")),
        (
            "HEAD",
            b"HEAD /hooks/open HTTP/1.1\r\nhost: d\r\nconnection: close\r\n\r\n".to_vec(),
            Some(405),
            Some("a HEAD came"),
        ),
        (
            "a method that is none",
            b"BREW /hooks/open HTTP/1.1\r\nhost: d\r\n\r\n".to_vec(),
            Some(405),
            Some("a BREW came"),
        ),
        ("CONNECT", b"CONNECT door:443 HTTP/1.1\r\nhost: d\r\n\r\n".to_vec(), Some(404), nothing),
        ("OPTIONS *", b"OPTIONS * HTTP/1.1\r\nhost: d\r\n\r\n".to_vec(), Some(404), nothing),
        ("HTTP/1.0", format!("POST /hooks/open HTTP/1.0\r\n{json}\r\n{{}}").into_bytes(), Some(202), None),
        ("HTTP/2 without asking", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), None, Some("not HTTP/1.1")),
        ("not HTTP", b"\x16\x03\x01\x02\x00\x01\x00".to_vec(), Some(400), Some("not HTTP/1.1")),
        ("absolute form", post("http://door/hooks/open", json, "{}"), Some(202), None),
        ("absolute form of elsewhere", post("http://169.254.169.254/latest", json, "{}"), Some(404), nothing),
        (
            "a header that is not UTF-8",
            [&b"POST /hooks/open HTTP/1.1\r\nx: \xff\xfe\r\n"[..], json.as_bytes(), b"\r\n{}"].concat(),
            Some(202),
            None,
        ),
        (
            "a folded header",
            post("/hooks/open", &format!("x: a\r\n b\r\n{json}"), "{}"),
            Some(400),
            Some("not HTTP/1.1"),
        ),
        (
            "a bare newline in a header",
            b"POST /hooks/open HTTP/1.1\nhost: d\ncontent-length: 2\n\n{}".to_vec(),
            Some(202),
            None,
        ),
        (
            "NUL in the path",
            b"POST /hooks/o\0pen HTTP/1.1\r\nhost: d\r\n\r\n".to_vec(),
            Some(400),
            Some("not HTTP/1.1"),
        ),
        ("doubled slashes", post("//hooks//open", json, "{}"), Some(404), nothing),
        ("a slash at the end", post("/hooks/open/", json, "{}"), Some(404), nothing),
        ("percent-encoding", post("/hooks/%6fpen", json, "{}"), Some(404), nothing),
        ("an encoded slash", post("/hooks%2fopen", json, "{}"), Some(404), nothing),
        ("dots", post("/hooks/../hooks/open", json, "{}"), Some(404), nothing),
        ("encoded dots", post("/hooks/%2e%2e/hooks/open", json, "{}"), Some(404), nothing),
        ("other case", post("/HOOKS/open", json, "{}"), Some(404), nothing),
        ("a path parameter", post("/hooks/open;x=1", json, "{}"), Some(404), nothing),
        ("a query", post("/hooks/open?x=1&y=%00", json, "{}"), Some(202), None),
        ("a source that is off", post("/hooks/off", json, "{}"), Some(404), Some("switched off")),
        (
            "a stranger's body is not read",
            post("/hooks/fenced", "content-length: 900\r\n", ""),
            Some(403),
            Some("is not in allowed_sources"),
        ),
        (
            "not JSON",
            post("/hooks/open", "content-type: application/json\r\ncontent-length: 1\r\n", "{"),
            Some(400),
            Some(""),
        ),
        (
            "multipart",
            post("/hooks/open", "content-type: multipart/form-data; boundary=x\r\ncontent-length: 2\r\n", "{}"),
            Some(415),
            Some(""),
        ),
    ]
}

async fn decided(world: &World, reason: &str) -> bool {
    let decisions = world.get("/decisions?limit=500").await;
    let items = decisions["items"].as_array().unwrap();
    items.iter().any(|d| d["reason"].as_str().unwrap().contains(reason))
}

#[tokio::test]
async fn every_hostile_request_gets_its_answer_and_its_decision() {
    for (what, bytes, status, reason) in cases() {
        let world = World::with(hasty()).await;
        let mut client = world.connect().await;
        client.write(&bytes).await;
        let answer = client.answer().await;
        assert_eq!(answer.as_ref().map(|a| a.status), status, "{what}: {answer:?}");
        if let Some(reason) = reason {
            until(|| async { decided(&world, reason).await.then_some(()) }).await;
        }
        let stored = world.get("/events").await["items"].as_array().unwrap().len();
        assert_eq!(stored, usize::from(status == Some(202)), "{what}");
        // And the door is still open for others.
        let after = world.call("POST", "/hooks/open", &[], "hello").await;
        assert_eq!(after.status, 202, "after {what}: {after:?}");
    }
}

#[tokio::test]
async fn a_body_that_drips_is_cut_at_its_total_time() {
    let world = World::with(hasty()).await;
    let client = world.connect().await;
    let (mut read, mut write) = client.stream.into_split();
    let began = Instant::now();
    let drip = tokio::spawn(async move {
        let _ = write.write_all(b"POST /hooks/open HTTP/1.1\r\nhost: d\r\ncontent-length: 900\r\n\r\n").await;
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut text = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut text).await;
    assert!(text.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&text));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(700) && took < Duration::from_secs(5), "{took:?}");
    drip.abort();
    until(|| async { decided(&world, "did not come within 800ms").await.then_some(()) }).await;
}

#[tokio::test]
async fn a_length_that_promises_more_than_comes_stores_nothing() {
    let world = World::with(hasty()).await;
    let mut client = world.connect().await;
    client.write(b"POST /hooks/open HTTP/1.1\r\nhost: d\r\ncontent-length: 100\r\n\r\n{\"a\":1}").await;
    client.stream.shutdown().await.unwrap();
    let answer = client.answer().await;
    assert!(answer.is_none_or(|a| a.status == 400));
    client.ends().await;
    until(|| async { decided(&world, "broke off").await.then_some(()) }).await;
    assert!(world.get("/events").await["items"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_sender_of_far_too_much_still_reads_why_it_was_refused() {
    let world = World::with(hasty()).await;
    let mut client = world.connect().await;
    client.write(&post("/hooks/open", "content-length: 4000000\r\n", &"x".repeat(4_000_000))).await;
    let answer = client.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));
    client.ends().await;
}

#[tokio::test]
async fn two_requests_in_one_packet_are_two_events_in_their_order() {
    let world = World::with(hasty()).await;
    let mut client = world.connect().await;
    let one = request("POST", "/hooks/open", &[], "one");
    let two = request("POST", "/hooks/open", &[], "two");
    client.write(format!("{one}{two}").as_bytes()).await;
    let (first, second) = (client.answer().await.unwrap(), client.answer().await.unwrap());
    assert_eq!((first.status, second.status), (202, 202));
    let id = |a: &crate::world::Answer| a.json()["event_id"].as_str().unwrap().to_owned();
    assert!(id(&first) < id(&second));
}

#[tokio::test]
async fn length_and_chunks_together_smuggle_nothing() {
    let world = World::with(hasty()).await;
    let mut client = world.connect().await;
    let inner = "POST /hooks/open HTTP/1.1\r\nhost: d\r\ncontent-length: 8\r\n\r\nsmuggled";
    let outer =
        "POST /hooks/open HTTP/1.1\r\nhost: d\r\ncontent-length: 200\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    client.write(format!("{outer}{inner}").as_bytes()).await;
    while client.answer().await.is_some() {}
    let events = world.get("/events").await;
    for event in events["items"].as_array().unwrap() {
        let id = event["id"].as_str().unwrap();
        assert_ne!(world.get(&format!("/events/{id}")).await["data"], "smuggled");
    }
}

#[tokio::test]
async fn silence_is_cut_at_each_stage_and_only_then() {
    let world = World::with(hasty()).await;
    let began = Instant::now();
    let mut silent = world.connect().await;
    silent.ends().await;
    assert!(began.elapsed() >= Duration::from_millis(300), "the first byte has its time");
    let mut idle = world.connect().await;
    idle.write(request("POST", "/hooks/open", &[], "x").as_bytes()).await;
    assert_eq!(idle.answer().await.unwrap().status, 202);
    let answered = Instant::now();
    idle.ends().await;
    assert!(answered.elapsed() >= Duration::from_millis(1000), "an idle connection has longer than a head");
}

#[tokio::test]
async fn beyond_the_cap_connections_are_closed_and_places_come_back() {
    let mut options = short();
    options.limits.connections = 3;
    options.timeouts.first_byte = Duration::from_secs(60);
    let world = World::with(options).await;
    let mut held: Vec<Client> = Vec::new();
    for _ in 0..3 {
        held.push(world.connect().await);
    }
    let mut fourth = world.connect().await;
    fourth.ends().await;
    drop(held);
    until(|| async {
        let mut client = world.connect().await;
        client.write(request("POST", "/hooks/open", &[], "x").as_bytes()).await;
        client.answer().await.map(|a| assert_eq!(a.status, 202))
    })
    .await;
}
