//! The store fails for good while the real program serves: it takes nothing more, says why, and ends with a failure.

use std::io::{Seek as _, Write as _};

use serde_json::json;

use crate::world::{Door, HttpAgent, eventually, github};

async fn door(agent: &HttpAgent) -> Door {
    Door::start(&format!(
        "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\n\
         [agents.worker]\nrunner = \"http\"\nurl = \"{}\"\n\
         [triggers.ring]\nagent = \"worker\"\nprovider = \"github\"\nsecret = {{ env = \"TEST_SECRET\" }}\n",
        agent.url()
    ))
    .await
}

/// Rings until it is over: the status of each answer, as long as there were answers.
async fn ring_until_it_ends(door: &mut Door) -> (Vec<u16>, Option<i32>) {
    let mut answers = Vec::new();
    for n in 0.. {
        let body = json!({ "n": n }).to_string();
        match github(&door.url("/hooks/ring"), &door.http, &format!("d{n}"), "push", body.as_bytes()).send().await {
            Ok(answer) => answers.push(answer.status().as_u16()),
            Err(_) => break,
        }
        tokio::task::yield_now().await;
    }
    (answers, door.wait().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_is_removed_ends_the_program_before_more_is_accepted() {
    let agent = HttpAgent::start().await;
    let mut door = door(&agent).await;
    std::fs::remove_dir_all(door.path().join("data")).unwrap();
    let http = door.http.clone();
    let ready = door.url("/ready");
    // Not ready any more, or not there any more: nobody sends events there.
    eventually("it is not ready", || async {
        let is_ready = http.get(&ready).send().await.is_ok_and(|r| r.status() == 200);
        (!is_ready).then_some(())
    })
    .await;
    let (answers, code) = ring_until_it_ends(&mut door).await;
    assert!(answers.iter().all(|status| *status == 503), "{answers:?}");
    assert_eq!(code, Some(1), "{}", door.log());
    let log = door.log();
    assert!(
        log.contains("doorbell.db was removed or replaced while Doorbell was running, so Doorbell stopped"),
        "{log}"
    );
    assert!(log.contains("Put the data directory back where it was, or restore a backup"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_damaged_under_it_ends_the_program_and_answers_no_2xx() {
    let agent = HttpAgent::start().await;
    let mut door = door(&agent).await;
    // In place, so that the files stay the same ones: the database, its log, and the index of the log in shared memory.
    for name in ["doorbell.db", "doorbell.db-wal", "doorbell.db-shm"] {
        let mut file = std::fs::File::options().write(true).open(door.path().join("data").join(name)).unwrap();
        let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
        file.rewind().unwrap();
        file.write_all(&vec![0xa5; length]).unwrap();
    }
    let (answers, code) = ring_until_it_ends(&mut door).await;
    assert!(answers.iter().all(|status| *status == 503), "{answers:?}");
    assert_eq!(code, Some(1), "{}", door.log());
    let log = door.log();
    assert!(log.contains("error: the store failed for good, so Doorbell stopped"), "{log}");
    assert!(log.contains("restore a backup"), "{log}");
}
