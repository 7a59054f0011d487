//! The program called for one command, as a person or a script calls it: with standard input, to its end.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::world::{Door, SECRET, TOKEN};

/// Calls the program in `dir` with the token and the secret that doors of tests have, and `environment` besides.
pub fn call(dir: &Path, environment: &[(&str, &str)], args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_doorbell"))
        .args(args)
        .current_dir(dir)
        .env("DOORBELL_ADMIN_TOKEN", TOKEN)
        .env("TEST_SECRET", SECRET)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads nothing may have ended before.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

/// Calls it for this door's server.
pub fn at(door: &Door, args: &[&str], stdin: &str) -> Output {
    call(door.path(), &[("DOORBELL_URL", &door.url(""))], args, stdin)
}

/// How it ended, and both streams.
pub fn said(output: Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}
