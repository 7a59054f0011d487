#!/usr/bin/env bash
# Every command of the project, for people and for CI alike: ./do help
set -euo pipefail
cd "$(dirname "$0")"

help() {
  cat <<'TEXT'
./do demo          the main job: server, agent, signed deliveries, a live table (Ctrl-C ends it)
./do test [ARGS]   installs what the tests need, then runs them all (ARGS go to cargo test)
./do long          the long versions: hundreds of crash rounds, more property cases
./do check         format, lints, licences and advisories, docs: what CI runs beside the tests
./do ci            check and test
./do bench [WHAT]  ratios against a bare handler, the disk and a direct client (ack, latency, agent, start, queue, memory, verify)
TEXT
}

say() { printf '\n== %s\n' "$*"; }

# The senders' SDKs need this node or a newer one; Debian 12 has 18.
node_min=20

node_is_new() {
  command -v node >/dev/null && [ "$(node -p 'process.versions.node.split(".")[0]')" -ge "$node_min" ]
}

# A C compiler for SQLite and aws-lc, and node for the senders' own SDKs. Installed only where missing.
setup() {
  local missing=()
  command -v cc >/dev/null || missing+=(build-essential)
  command -v node >/dev/null || missing+=(nodejs)
  command -v npm >/dev/null || missing+=(npm)
  if ((${#missing[@]})); then
    local sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo"
    say "installing ${missing[*]}"
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}"
  fi
  if [ tests/senders/package-lock.json -nt tests/senders/node_modules/.package-lock.json ]; then
    say "installing the senders' SDKs"
    npm ci --prefix tests/senders --no-audit --no-fund --silent
  fi
  newer_node
}

# Where the system's node is too old, one from npm beside it, for this script alone. After `npm ci` above: the system's npm
# belongs to the system's node.
newer_node() {
  if node_is_new; then return; fi
  if [ tests/node/package-lock.json -nt tests/node/node_modules/.package-lock.json ]; then
    say "the tests need node $node_min, here is $(node --version): installing a newer one in tests/node"
    npm ci --prefix tests/node --no-audit --no-fund --silent
  fi
  local bin
  for bin in tests/node/node_modules/node-linux-*/bin; do PATH="$PWD/$bin:$PATH"; done
  export PATH
  hash -r
  if ! node_is_new; then
    printf '%s\n' \
      "The tests need node $node_min or newer; here is $(node --version 2>&1), and tests/node has none for $(uname -m)." \
      'Install one (https://nodejs.org/en/download) so that it comes first on PATH, then run this again.' >&2
    exit 1
  fi
}

test_all() {
  setup
  say "tests"
  cargo test --workspace --locked "$@"
}

long() {
  setup
  say "long tests"
  DOORBELL_TEST_LONG=1 PROPTEST_CASES=2000 cargo test --workspace --locked --release "$@"
}

check() {
  say "format"
  cargo fmt --all --check
  say "lints"
  cargo clippy --workspace --all-targets --locked -- -D warnings
  say "one TLS provider, one SQLite"
  for crate in ring openssl-sys sqlx-core; do
    if cargo tree --workspace --locked -e normal,build -i "$crate" 2>/dev/null | grep -q .; then
      echo "$crate is in the tree of the default features; see docs/decisions.md on why it must not be" >&2
      exit 1
    fi
  done
  deny
  say "docs"
  RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --workspace --no-deps --locked --document-private-items
}

deny() {
  say "licences, bans, sources"
  cargo deny --version >/dev/null 2>&1 || cargo install cargo-deny --locked --quiet
  cargo deny --log-level error --locked check licenses bans sources
  if cargo deny --log-level off --locked check advisories >/dev/null 2>&1; then
    echo "advisories ok"
  elif cargo deny --log-level off fetch >/dev/null 2>&1; then
    cargo deny --log-level error --locked check advisories
  else
    printf '\n%s\n%s\n' \
      '!! ADVISORIES WERE NOT CHECKED: the advisory database could not be fetched from here.' \
      '!! Run `cargo deny check advisories` where it can.' >&2
  fi
}

case "${1:-help}" in
  demo) shift; cargo run --release --locked -p doorbell -- demo "$@" ;;
  test) shift; test_all "$@" ;;
  long) shift; long "$@" ;;
  check) check ;;
  ci) check; test_all ;;
  bench) shift; cargo build --release --locked -p doorbell -p doorbell-bench; target/release/doorbell-bench "${@:-ack}" ;;
  help | --help | -h) help ;;
  *) help >&2; exit 2 ;;
esac
