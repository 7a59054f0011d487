-- The first schema. Rows are narrow and indexes few, because every byte here is written twice (log and file) on the way
-- to every answer. All ids are rowids that the writer hands out from counters in memory. Times are milliseconds since 1970.
-- Columns that hold much come last, so that lists need not read past them.

PRAGMA application_id = 0x44425231; -- "DBR1"

-- tag, token_key: made with the store. dedup_floor: prints of events before it stand in dedup. next_seq, next_run: floors for the counters, so that no id is given twice after
-- retention took the newest row.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY NOT NULL,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- Names from the configuration, so that rows carry a small number instead.
CREATE TABLE names (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- A queue is an agent with a trigger; claims look for the oldest due run queue by queue.
CREATE TABLE queues (
    id        INTEGER PRIMARY KEY,
    agent     INTEGER NOT NULL,
    "trigger" INTEGER NOT NULL,
    UNIQUE (agent, "trigger")
) STRICT;

-- What was accepted, ignored, or could not be filtered. Also the decision: events and decisions share one counter, so
-- that both together are one list in the order of commit.
CREATE TABLE events (
    seq         INTEGER PRIMARY KEY,
    at          INTEGER NOT NULL,
    verdict     INTEGER NOT NULL CHECK (verdict IN (0, 2, 3)), -- decision::Kind: accepted, ignored, filter_error
    source      INTEGER NOT NULL,
    first_run   INTEGER NOT NULL, -- its runs were given consecutive numbers
    runs        INTEGER NOT NULL,
    prints      BLOB,             -- its fingerprints, 16 bytes each; from meta.dedup_floor on they may stand only here
    event_type  TEXT NOT NULL,
    subject     TEXT,
    remote      BLOB,             -- 4 or 16 bytes
    body_format INTEGER NOT NULL,
    body_len    INTEGER NOT NULL, -- before compression
    body_codec  INTEGER NOT NULL CHECK (body_codec IN (0, 1)), -- 0 as it came, 1 lz4 block
    facts       BLOB NOT NULL,    -- event::Facts as JSON
    body        BLOB
) STRICT;

-- What retention looks for before the accepted ones.
CREATE INDEX events_unwanted ON events (at) WHERE verdict <> 0;

-- Where a run came from beside events.first_run: a replay. (And where the further events of a run that joins several go.)
CREATE TABLE run_events (
    event INTEGER NOT NULL,
    run   INTEGER NOT NULL,
    PRIMARY KEY (event, run)
) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
    seq         INTEGER PRIMARY KEY,
    event       INTEGER NOT NULL,
    queue       INTEGER NOT NULL,
    state       INTEGER NOT NULL CHECK (state BETWEEN 0 AND 5), -- run::State
    blocked     INTEGER NOT NULL, -- 1: its lane must move before it can be claimed
    passed      INTEGER NOT NULL, -- 1: others of its lane may pass while it waits
    shared      INTEGER NOT NULL, -- 1: others were in its lane with it
    due_at      INTEGER NOT NULL,
    ord         INTEGER NOT NULL, -- its place in the lane: seq, until a retry by hand sends it to the tail
    lane        INTEGER,
    created_at  INTEGER NOT NULL,
    source      INTEGER NOT NULL,
    attempt     INTEGER NOT NULL DEFAULT 0,
    lease       INTEGER NOT NULL DEFAULT 0,
    holder      INTEGER NOT NULL DEFAULT 0,
    lease_until INTEGER,
    deferred    INTEGER NOT NULL DEFAULT 0,
    started_at  INTEGER,
    finished_at INTEGER,
    steps       INTEGER,
    tokens      INTEGER,
    cost_usd    REAL,
    event_type  TEXT NOT NULL,
    key         TEXT,
    title       TEXT NOT NULL,
    flag        TEXT,
    cancel_by   TEXT, -- somebody asked to cancel it while it ran
    children    TEXT, -- JSON: processes of the present attempt
    approval    TEXT, -- JSON: what it waits for
    error       TEXT,
    moves       BLOB, -- moves.rs
    output      BLOB
) STRICT;

-- What can be claimed. Runs behind another in their lane are not in it: a stuck lane costs the others nothing.
-- With the lane, so that opening learns from the index alone who is in which.
CREATE INDEX runs_due ON runs (queue, due_at, ord, lane) WHERE state = 0 AND blocked = 0;
-- Who holds a lane: unfinished and not passed; its first is the head. Lanes are in no order, so each entry dirties a page
-- of its own; who was never with others in a lane needs none.
CREATE INDEX runs_holding ON runs (lane, ord) WHERE shared = 1 AND passed = 0 AND state < 3;
-- Passed runs that fell due while their lane was busy.
CREATE INDEX runs_passed ON runs (lane, queue, due_at, ord) WHERE state = 0 AND passed = 1 AND blocked = 1;
-- Running, waiting, failed: few among many, and what people and the reaper look for.
CREATE INDEX runs_apart ON runs (state, seq) WHERE state IN (1, 2, 4);

-- Fingerprints of deliveries that were accepted: 128 bits as two integers, the first of which is the row's place.
CREATE TABLE dedup (
    head  INTEGER PRIMARY KEY,
    rest  INTEGER NOT NULL,
    event INTEGER NOT NULL,
    at    INTEGER NOT NULL
) STRICT;

-- What the door said to requests that made no event.
CREATE TABLE decisions (
    seq    INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL,
    kind   INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 9), -- decision::Kind
    source INTEGER,             -- none: the path belongs to no source
    ring   INTEGER NOT NULL,    -- 1: of an unverified request, kept in a ring
    event  INTEGER,
    remote BLOB,
    code   TEXT NOT NULL,
    reason TEXT NOT NULL,
    checks BLOB NOT NULL        -- JSON
) STRICT;
CREATE INDEX decisions_ring ON decisions (source, seq) WHERE ring = 1;
CREATE INDEX decisions_event ON decisions (event) WHERE event IS NOT NULL;

-- What agents put out while they run.
CREATE TABLE log (
    run     INTEGER NOT NULL,
    n       INTEGER NOT NULL, -- from 1, over all attempts
    attempt INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    stream  INTEGER NOT NULL CHECK (stream BETWEEN 0 AND 2),
    bytes   BLOB NOT NULL,
    PRIMARY KEY (run, n)
) STRICT, WITHOUT ROWID;

-- Switches set while the program runs.
CREATE TABLE flags (
    kind  INTEGER NOT NULL CHECK (kind IN (0, 1)), -- 0 agent paused, 1 trigger disabled
    name  TEXT NOT NULL,
    value INTEGER NOT NULL CHECK (value IN (0, 1)),
    at    INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

-- How the agents' breakers stand.
CREATE TABLE breakers (
    agent      TEXT PRIMARY KEY NOT NULL,
    failures   INTEGER NOT NULL, -- since the last good end
    open_until INTEGER           -- set: it has opened; from then on it is half open
) STRICT, WITHOUT ROWID;

-- API keys: only what tells a key from others, never a key. A removed one has no row.
CREATE TABLE api_keys (
    id           INTEGER PRIMARY KEY,
    finder       TEXT NOT NULL UNIQUE, -- the part of the key that is no secret
    agent        TEXT NOT NULL,        -- '': all agents
    name         TEXT NOT NULL,
    kind         TEXT NOT NULL,        -- keys::Kind
    rights       TEXT NOT NULL,        -- keys::Right, with spaces between
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER,
    hash         BLOB NOT NULL,        -- BLAKE3 of the whole key
    before_hash  BLOB,                 -- of the one before, until before_until
    before_until INTEGER,
    UNIQUE (agent, name, kind)
) STRICT;

-- Secrets, sealed with the master key (core::seal): without it nothing of them can be read. One row a value.
CREATE TABLE secrets (
    id         INTEGER PRIMARY KEY, -- the highest of a name is its newest
    name       TEXT NOT NULL,       -- with its namespace: user/, pairing/, …
    sealed     BLOB NOT NULL,       -- seal::Sealed; the name is authenticated in it
    made_at    INTEGER NOT NULL,
    expires_at INTEGER
) STRICT;
CREATE INDEX secrets_name ON secrets (name, id);

-- Sources that stand open, so that their sender may hand over its secret.
CREATE TABLE pairings (
    source TEXT PRIMARY KEY NOT NULL,
    until  INTEGER NOT NULL,
    keep   INTEGER NOT NULL CHECK (keep IN (0, 1)) -- 1: earlier secrets stay good
) STRICT, WITHOUT ROWID;

-- Agents that registered themselves over a wire contract.
CREATE TABLE registrations (
    name          TEXT PRIMARY KEY NOT NULL,
    acp_url       TEXT NOT NULL,
    acp_type      TEXT NOT NULL,
    description   TEXT NOT NULL,
    input_type    TEXT,
    metadata      TEXT,             -- a JSON object
    created_at    INTEGER NOT NULL, -- the first time
    registered_at INTEGER NOT NULL  -- the last time
) STRICT, WITHOUT ROWID;
