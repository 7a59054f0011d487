//! A run's moving part, read from its row and written back. Everything that changes one run goes through [`load`],
//! a method of `Record`, and [`save`]; only accepting and the lane marks write by themselves.

use std::net::IpAddr;
use std::sync::LazyLock;

use doorbell_core::Timestamp;
use doorbell_core::attempt::Usage;
use doorbell_core::lane::LaneId;
use doorbell_core::run::State;
use rusqlite::{Connection, OptionalExtension, Row, ToSql};

use super::book::time;
use super::errors::corrupt;
use crate::moves;
use crate::record::{Output, Record};

/// Columns of the moving part, in the order that [`record`] reads.
pub(super) const RECORD: &str = "seq, event, queue, state, blocked, passed, due_at, ord, lane, created_at, attempt, lease,
    holder, lease_until, deferred, started_at, finished_at, steps, tokens, cost_usd, cancel_by, children, approval, error,
    moves";

/// The state behind a number.
pub(super) fn state(code: u8) -> rusqlite::Result<State> {
    State::from_code(code).ok_or_else(|| corrupt(format!("{code} is not a run state")))
}

/// Reads the columns of [`RECORD`], from the first.
pub(super) fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let number = |at: usize| row.get::<_, i64>(at).map(i64::cast_unsigned);
    let maybe_time = |at: usize| row.get::<_, Option<i64>>(at).map(|t| t.map(time));
    let moves = match row.get_ref(24)?.as_blob_or_null().map_err(|e| corrupt(e.to_string()))? {
        None => Vec::new(),
        Some(blob) => moves::decode(blob).ok_or_else(|| corrupt("a run's history cannot be read"))?,
    };
    Ok(Record {
        seq: number(0)?,
        event: number(1)?,
        queue: row.get(2)?,
        state: state(row.get(3)?)?,
        blocked: row.get(4)?,
        passed: row.get(5)?,
        due_at: time(row.get(6)?),
        ord: number(7)?,
        lane: row.get::<_, Option<i64>>(8)?.map(LaneId),
        created_at: time(row.get(9)?),
        attempt: row.get(10)?,
        lease: number(11)?,
        holder: number(12)?,
        lease_until: maybe_time(13)?,
        deferred: row.get(14)?,
        started_at: maybe_time(15)?,
        finished_at: maybe_time(16)?,
        steps: row.get::<_, Option<i64>>(17)?.map(i64::cast_unsigned),
        usage: Usage { tokens: row.get::<_, Option<i64>>(18)?.map(i64::cast_unsigned), cost_usd: row.get(19)? },
        cancel_by: row.get(20)?,
        children: json(row, 21)?.unwrap_or_default(),
        approval: json(row, 22)?,
        error: row.get(23)?,
        moves,
    })
}

/// Reads a JSON column.
pub(super) fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<T>> {
    let bytes = row.get_ref(at)?.as_bytes_or_null().map_err(|e| corrupt(e.to_string()))?;
    bytes.map(serde_json::from_slice).transpose().map_err(|e| corrupt(format!("a JSON column cannot be read: {e}")))
}

/// A run's moving part.
pub(super) fn load(conn: &Connection, seq: u64) -> rusqlite::Result<Option<Record>> {
    let sql = load_sql();
    conn.prepare_cached(sql)?.query_row([seq.cast_signed()], record).optional()
}

fn load_sql() -> &'static str {
    static SQL: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| format!("SELECT {RECORD} FROM runs WHERE seq = ?1"));
    &SQL
}

/// Writes a run's moving part back.
pub(super) fn save(conn: &Connection, r: &Record, output: &Output) -> rusqlite::Result<()> {
    let text = |value: Option<serde_json::Result<String>>| {
        value.transpose().map_err(|e| corrupt(format!("a JSON column cannot be written: {e}")))
    };
    let children = text((!r.children.is_empty()).then(|| serde_json::to_string(&r.children)))?;
    let approval = text(r.approval.as_ref().map(serde_json::to_string))?;
    let millis = |at: Option<Timestamp>| at.map(Timestamp::millis);
    const MOVING: &str = "UPDATE runs SET state = ?2, blocked = ?3, passed = ?4, due_at = ?5, ord = ?6, attempt = ?7,
                   lease = ?8, holder = ?9, lease_until = ?10, deferred = ?11, started_at = ?12, finished_at = ?13,
                   steps = ?14, tokens = ?15, cost_usd = ?16, cancel_by = ?17, children = ?18, approval = ?19, error = ?20,
                   moves = ?21";
    static KEEP: LazyLock<String> = LazyLock::new(|| format!("{MOVING} WHERE seq = ?1"));
    static SET: LazyLock<String> = LazyLock::new(|| format!("{MOVING}, output = ?22 WHERE seq = ?1"));
    let (sql, output) = match output {
        Output::Keep => (&*KEEP, None),
        Output::Set(bytes) => (&*SET, Some(Some(&bytes[..]))),
        Output::Clear => (&*SET, Some(None)),
    };
    let mut statement = conn.prepare_cached(sql)?;
    let moves = moves::encode(&r.moves);
    let columns: [&dyn ToSql; 21] = [
        &r.seq.cast_signed(),
        &r.state.code(),
        &r.blocked,
        &r.passed,
        &r.due_at.millis(),
        &r.ord.cast_signed(),
        &r.attempt,
        &r.lease.cast_signed(),
        &r.holder.cast_signed(),
        &millis(r.lease_until),
        &r.deferred,
        &millis(r.started_at),
        &millis(r.finished_at),
        &r.steps.map(u64::cast_signed),
        &r.usage.tokens.map(u64::cast_signed),
        &r.usage.cost_usd,
        &r.cancel_by,
        &children,
        &approval,
        &r.error,
        &moves,
    ];
    for (column, at) in columns.iter().zip(1..) {
        statement.raw_bind_parameter(at, column)?;
    }
    if let Some(output) = output {
        statement.raw_bind_parameter(22, output)?;
    }
    statement.raw_execute()?;
    Ok(())
}

/// An address in 4 or 16 bytes.
pub(super) fn bytes_of(remote: IpAddr) -> Vec<u8> {
    match remote {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// An address from its bytes.
pub(super) fn address(bytes: Option<Vec<u8>>) -> rusqlite::Result<Option<IpAddr>> {
    let Some(bytes) = bytes else { return Ok(None) };
    if let Ok(v4) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Ok(Some(IpAddr::from(v4)));
    }
    match <[u8; 16]>::try_from(bytes.as_slice()) {
        Ok(v6) => Ok(Some(IpAddr::from(v6))),
        Err(_) => Err(corrupt(format!("an address of {} bytes", bytes.len()))),
    }
}
