//! Lone UTF-16 surrogates in JSON escapes. JSON's grammar allows `"\ud800"`, no UTF-8 string can hold it, and parsers
//! differ: some refuse, some replace, some keep it. Here each becomes `\ufffd`, in the text itself, before anything
//! parses it, so that there is one reading. The length stays the same, and with it every byte offset in an error.

/// The text without lone surrogates; none if it has none. Escapes outside of strings are left alone or changed into
/// other hex digits: such a text is not JSON before and after.
pub(super) fn mended(text: &[u8]) -> Option<Vec<u8>> {
    let mut out: Option<Vec<u8>> = None;
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| memchr::memchr(b'\\', rest)) {
        at += found;
        match unit(text, at) {
            None => at += 2,
            Some(0xd800..=0xdbff) if matches!(unit(text, at + 6), Some(0xdc00..=0xdfff)) => at += 12,
            Some(0xd800..=0xdfff) => {
                out.get_or_insert_with(|| text.to_vec())[at + 2..at + 6].copy_from_slice(b"fffd");
                at += 6;
            }
            Some(_) => at += 6,
        }
    }
    out
}

/// The code unit of the `\uXXXX` that starts at `at`.
fn unit(text: &[u8], at: usize) -> Option<u16> {
    let escape = text.get(at..at.checked_add(6)?)?;
    let digits = escape.strip_prefix(b"\\u")?;
    let mut unit = 0u16;
    for digit in digits {
        unit = (unit << 4) | u16::try_from((*digit as char).to_digit(16)?).ok()?;
    }
    Some(unit)
}
