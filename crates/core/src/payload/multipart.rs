//! One field of a `multipart/form-data` body (RFC 7578, RFC 2046 section 5.1). Senders that wrap their JSON so send that one
//! field; nothing else of such a body is looked at or kept. Called by the reader of bodies, by the check of the sender
//! (the same reading, so that they cannot differ), and by `sign`, which writes one.
//!
//! Strict where two readers could differ: the field stands there once, under a plain name, and every delimiter has the
//! line break before it that makes it one.

use bytes::Bytes;
use memchr::memmem;

/// The longest boundary (RFC 2046, section 5.1.1).
const BOUNDARY_BYTES_MAX: usize = 70;
/// Parts beyond this are not somebody's one field.
const PARTS_MAX: usize = 32;
/// A part's head is one or two lines.
const HEAD_BYTES_MAX: usize = 4096;

/// The content of the part called `field`. None if the content type is another one: then the body is what it is.
///
/// # Errors
/// What is wrong, in words: no boundary, no such field, several of them, a part that is encoded or never ends.
pub fn part(raw: &Bytes, content_type: Option<&str>, field: &str) -> Result<Option<Bytes>, &'static str> {
    let media = content_type.unwrap_or_default();
    if !super::essence(media).eq_ignore_ascii_case("multipart/form-data") {
        return Ok(None);
    }
    let boundary = boundary(media).ok_or("the content type names no boundary")?;
    let delimiter = format!("\r\n--{boundary}");
    // The first one opens the body; what stands before it is a preamble, which nobody sends.
    let opening = &delimiter.as_bytes()[2..];
    let mut rest = raw.strip_prefix(opening).ok_or("it does not begin with its boundary")?;
    let mut found = None;
    for _ in 0..PARTS_MAX {
        if rest.starts_with(b"--") {
            return found.map(Some).ok_or("there is none");
        }
        rest = rest.strip_prefix(b"\r\n").ok_or("a boundary does not end its line")?;
        let head_end =
            memmem::find(&rest[..rest.len().min(HEAD_BYTES_MAX)], b"\r\n\r\n").ok_or("a part has no head")?;
        let (head, content) = (&rest[..head_end], &rest[head_end + 4..]);
        let end = memmem::find(content, delimiter.as_bytes()).ok_or("a part never ends")?;
        if name(head)? == Some(field) {
            if found.is_some() {
                return Err("it stands there more than once");
            }
            found = Some(raw.slice_ref(&content[..end]));
        }
        rest = &content[end + delimiter.len()..];
    }
    Err("it has more than 32 parts")
}

/// A body with this one field, and its content type.
pub fn write(field: &str, content: &[u8]) -> (String, Bytes) {
    // A text does not hold its own digest.
    let boundary = format!("doorbell-{}", &blake3::hash(content).to_hex()[..32]);
    let mut body = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"{field}\"\r\nContent-Type: application/json\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(content);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body.into())
}

fn boundary(content_type: &str) -> Option<&str> {
    let mut named = content_type.split(';').skip(1).filter_map(|parameter| {
        let (name, value) = parameter.trim().split_once('=')?;
        name.eq_ignore_ascii_case("boundary").then(|| value.trim())
    });
    let (first, None) = (named.next()?, named.next()) else { return None };
    let boundary = first.strip_prefix('"').map_or(Some(first), |quoted| quoted.strip_suffix('"'))?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&b);
    ((1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()) && boundary.bytes().all(is_plain)).then_some(boundary)
}

/// The field's name that a part's head tells; none of a part that is no field of a form.
fn name(head: &[u8]) -> Result<Option<&str>, &'static str> {
    let head = std::str::from_utf8(head).map_err(|_| "the head of a part is not UTF-8")?;
    let mut name = None;
    for line in head.split("\r\n") {
        let (header, value) = line.split_once(':').ok_or("the head of a part holds a line that is no header")?;
        if header.eq_ignore_ascii_case("content-transfer-encoding") {
            let is_plain = ["7bit", "8bit", "binary"].iter().any(|plain| value.trim().eq_ignore_ascii_case(plain));
            is_plain.then_some(()).ok_or("a part is encoded")?;
        }
        if header.eq_ignore_ascii_case("content-disposition") {
            if name.is_some() {
                return Err("the head of a part says twice what it is");
            }
            name = Some(field_name(value).ok_or("the head of a part does not say plainly what it is")?);
        }
    }
    Ok(name)
}

/// `form-data; name="json"`; a name with escapes is nobody's, for readers differ in them.
fn field_name(disposition: &str) -> Option<&str> {
    let (kind, parameters) = disposition.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("form-data") || disposition.contains('\\') {
        return None;
    }
    let mut rest = parameters.trim();
    let mut name = None;
    while !rest.is_empty() {
        let (key, after) = rest.split_once("=\"")?;
        let (value, after) = after.split_once('"')?;
        if key.trim().eq_ignore_ascii_case("name") && name.replace(value).is_some() {
            return None;
        }
        rest = after.trim_start().strip_prefix(';').unwrap_or(after).trim();
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEDIA: &str = "multipart/form-data; boundary=xYz";

    fn json(body: &str) -> Result<Option<Bytes>, &'static str> {
        part(&Bytes::copy_from_slice(body.as_bytes()), Some(MEDIA), "json")
    }

    fn field(name: &str, content: &str) -> String {
        format!("--xYz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{content}\r\n")
    }

    #[test]
    fn the_one_field_is_found_among_others_and_byte_for_byte() {
        let file = "--xYz\r\ncontent-disposition: FORM-DATA; filename=\"a;b.pdf\"; name=\"file\"\r\n\
                    Content-Type: application/pdf\r\n\r\n%PDF\r\n-\r\n--xY\r\n";
        for content in ["{\"a\":1}", "", "\r\n", "{\"a\":\"--xYz\"}", "--xYz--", "café ☃\n"] {
            let body = format!("{file}{}{}--xYz--\r\n", field("json", content), field("json2", "{}"));
            assert_eq!(json(&body).unwrap().unwrap(), content.as_bytes(), "{body}");
        }
        assert_eq!(json("--xYz--").unwrap_err(), "there is none");
        let other = part(&Bytes::from_static(b"{}"), Some("application/json"), "json");
        assert_eq!(other, Ok(None), "another body is not touched");
    }

    #[test]
    fn what_two_readers_could_read_in_two_ways_is_not_read() {
        let good = field("json", "{}");
        let wrong = [
            format!("{good}{good}--xYz--"),
            format!("preamble\r\n{good}--xYz--"),
            good.clone(),
            format!("{good}--xYz"),
            format!("{good}--xYz \r\n\r\n--xYz--"),
            good.replace("\r\n\r\n", "\n\n") + "--xYz--",
            good.replace("name=", "name=\"a\"; name=") + "--xYz--",
            good.replace("\"json\"", "\"js\\on\"") + "--xYz--",
            good.replace("\"json\"", "json") + "--xYz--",
            good.replace("Content-D", "Content-Disposition: form-data; name=\"b\"\r\nContent-D") + "--xYz--",
            good.replace("\r\n\r\n", "\r\nContent-Transfer-Encoding: base64\r\n\r\n") + "--xYz--",
            good.replace("\r\n\r\n", "\r\nfolded\r\n\r\n") + "--xYz--",
            field("other", "{}").repeat(40) + &good + "--xYz--",
        ];
        for body in wrong {
            assert!(json(&body).is_err(), "{body}");
        }
        let body = Bytes::from(good + "--xYz--");
        let bad = ["", "; boundary=", "; boundary=\"xYz", "; boundary=a; boundary=xYz", "; boundary=x\u{7f}"];
        for parameters in bad {
            assert!(part(&body, Some(&format!("multipart/form-data{parameters}")), "json").is_err(), "{parameters}");
        }
        assert!(part(&body, Some("Multipart/Form-Data; charset=utf-8; Boundary=\"xYz\""), "json").is_ok());
    }

    #[test]
    fn what_is_written_reads_back() {
        for content in [&b"{}"[..], b"", b"\r\n--doorbell-", &[0xff, 0, b'\r', b'\n']] {
            let (media, body) = write("json", content);
            assert_eq!(part(&body, Some(&media), "json").unwrap().unwrap(), content);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), cut in 0_usize..80) {
            let _ = part(&Bytes::from(body), Some(MEDIA), "json");
            let good = field("json", "{}") + "--xYz--";
            let _ = json(good.get(..cut.min(good.len())).unwrap_or_default());
        }
    }
}
