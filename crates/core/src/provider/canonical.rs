//! Texts that some senders sign and that no list of places can put together: fields of a form in their order, a URL with
//! and without its port, a request written line by line. `signed` feeds them; each is one placeholder of a preset.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use aws_lc_rs::digest;
use http::HeaderName;

use super::Request;
use super::select::Place;
use super::signed::Unsignable;

/// `{sorted_form}`: name and value of every field, sorted by name, without anything between. Of a repeated name the
/// distinct values count, sorted. (Twilio: `getExpectedTwilioSignature`; Mandrill.)
pub(super) fn sorted_form(body: &[u8], mut sink: impl FnMut(&[u8])) {
    let fields: BTreeSet<_> = form_urlencoded::parse(body).collect();
    for (name, value) in &fields {
        sink(name.as_bytes());
        sink(value.as_bytes());
    }
}

/// `{php_form:…}`: the fields but one, sorted by name, as PHP's `serialize` writes an array of strings; of a name that stands
/// there twice nobody knows which counts. (Paddle Classic: `ksort`, `serialize`.)
pub(super) fn php_form(body: &[u8], without: &str) -> Result<Vec<u8>, Unsignable> {
    let mut fields = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(body).filter(|(name, _)| name != without) {
        let repeated = fields.insert(name.clone(), value).is_some();
        if repeated {
            return Err(Unsignable::Repeated(Place::Form(name.into_owned())));
        }
    }
    let mut text = format!("a:{}:{{", fields.len());
    for part in fields.iter().flat_map(|(name, value)| [name, value]) {
        let _ = write!(text, "s:{}:\"{part}\";", part.len());
    }
    text.push('}');
    Ok(text.into_bytes())
}

/// `{json_body}`: the body as a JSON string, as JavaScript's `JSON.stringify` writes one. (Hygraph: `@hygraph/utils`.)
pub(super) fn json_text(body: &[u8]) -> Vec<u8> {
    serde_json::to_vec(&String::from_utf8_lossy(body)).unwrap_or_default()
}

/// `{item:…}`: what stands behind `start` in the header's list; it has to be there once.
pub(super) fn item<'r>(request: &Request<'r>, list: &HeaderName, start: &str) -> Result<&'r [u8], Unsignable> {
    let values = request.headers.get_all(list).iter().flat_map(|v| v.as_bytes().split(|b| *b == b','));
    let mut found = values.filter_map(|item| item.trim_ascii().strip_prefix(start.as_bytes()));
    match (found.next(), found.next()) {
        (Some(item), None) => Ok(item),
        (None, _) => Err(Unsignable::Missing(Place::Header(list.clone()))),
        (Some(_), Some(_)) => Err(Unsignable::Repeated(Place::Header(list.clone()))),
    }
}

/// What Atlassian calls the query string hash: SHA-256 in hex over method, path and the sorted query without `jwt`, joined by
/// `&`. The path is that below the app's base URL, which has to be the root. (`createQueryStringHash` of npm atlassian-jwt 2.0.3.)
pub(super) fn query_hash(request: &Request<'_>) -> String {
    let path = match request.path.trim_end_matches('/') {
        "" => "/",
        path => path,
    };
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(request.query.as_bytes()).filter(|(name, _)| name != "jwt") {
        fields.entry(name.into_owned()).or_default().push(value.into_owned());
    }
    let mut query = Vec::new();
    for (name, mut values) in fields {
        values.sort();
        let values: Vec<String> = values.iter().map(|value| percent(value)).collect();
        query.push(format!("{}={}", percent(&name), values.join(",")));
    }
    let text = format!("{}&{}&{}", request.method, path.replace('&', "%26"), query.join("&"));
    hex::encode(digest::digest(&digest::SHA256, text.as_bytes()))
}

/// Percent-encoded but for RFC 3986's unreserved characters.
fn percent(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

/// `{escaped_body}`: `/` as `\/`, and every UTF-16 unit from U+007F on as `\uXXXX`. (Box: `validateWebhookMessage`.)
pub(super) fn escaped(body: &[u8], mut sink: impl FnMut(&[u8])) {
    let text = String::from_utf8_lossy(body);
    let mut room = [0; 2];
    for c in text.chars() {
        match c {
            '/' => sink(b"\\/"),
            '\0'..='\u{7e}' => sink(&[c as u8]),
            _ => c.encode_utf16(&mut room).iter().for_each(|unit| sink(format!("\\u{unit:04x}").as_bytes())),
        }
    }
}

/// The body with `\/` as `/`: JSON may write a slash either way.
pub(super) fn plain_slashes(body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some(at) = memchr::memmem::find(rest, b"\\/") {
        plain.extend_from_slice(&rest[..at]);
        plain.push(b'/');
        rest = &rest[at + 2..];
    }
    plain.extend_from_slice(rest);
    plain
}

/// `{url_with_port}`: the URL with the port that its scheme implies, if it has none.
pub(super) fn with_port(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = host_and_path(rest);
    if port_at(host).is_some() {
        return url.to_owned();
    }
    let port = if scheme == "http" { 80 } else { 443 };
    format!("{scheme}://{host}:{port}{path}")
}

/// `{url_without_port}`: the URL without its port.
pub(super) fn without_port(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = host_and_path(rest);
    let host = port_at(host).map_or(host, |at| &host[..at]);
    format!("{scheme}://{host}{path}")
}

fn host_and_path(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()))
}

/// Where the colon before the port stands; the colons inside `[::1]` are none.
fn port_at(host: &str) -> Option<usize> {
    host.rfind(':').filter(|at| !host[*at..].contains(']'))
}

/// `{plivo_url}`: the URL with its query sorted, then the form's fields sorted, as Plivo's V3 signature wants them. A `?`
/// stands there even without a query when there are fields, and a `.` between the query and the fields.
pub(super) fn plivo_url(url: &str, body: &[u8]) -> String {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let mut pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    let mut fields: Vec<_> = form_urlencoded::parse(body).collect();
    pairs.sort();
    fields.sort();
    let mut text = base.to_owned();
    if !pairs.is_empty() || !fields.is_empty() {
        text.push('?');
    }
    let query: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    text.push_str(&query.join("&"));
    if !pairs.is_empty() && !fields.is_empty() {
        text.push('.');
    }
    for (name, value) in &fields {
        text.push_str(name);
        text.push_str(value);
    }
    text
}

/// `{canonical:…}`: method, path with query, the headers that the named header lists, sorted, as `name:value` joined by
/// `;`, and the body, each on a line. (Contentful: `signRequest` of `@contentful/node-apps-toolkit` 3.16.1.)
///
/// Its path is escaped as JavaScript's `encodeURI` does, with a query that was escaped whole before that.
///
/// The list is the sender's to write, so it has to name itself and the timestamp, or they could be changed.
pub(super) fn request(
    request: &Request<'_>,
    list: &HeaderName,
    timestamp: Option<&Place>,
    mut sink: impl FnMut(&[u8]),
) -> Result<(), Unsignable> {
    let missing = || Unsignable::Missing(Place::Header(list.clone()));
    let listed = request.headers.get(list).and_then(|v| v.to_str().ok()).ok_or_else(missing)?;
    if request.headers.get_all(list).iter().count() > 1 {
        return Err(Unsignable::Repeated(Place::Header(list.clone())));
    }
    let mut lines = Vec::new();
    let mut has_itself = false;
    let mut has_time = timestamp.is_none();
    for name in listed.split(',').map(str::trim) {
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| missing())?;
        let place = Place::Header(header.clone());
        let mut values = request.headers.get_all(&header).iter();
        let (Some(value), rest) = (values.next(), values.next()) else { return Err(Unsignable::Missing(place)) };
        if rest.is_some() {
            return Err(Unsignable::Repeated(place));
        }
        has_itself |= header == *list;
        has_time |= timestamp == Some(&place);
        lines.push((header, value.as_bytes().trim_ascii()));
    }
    if !has_itself {
        return Err(missing());
    }
    if let (false, Some(place)) = (has_time, timestamp) {
        return Err(Unsignable::Missing(place.clone()));
    }
    sink(request.method.as_str().as_bytes());
    sink(b"\n");
    sink(escape(request.path, b";,/?:@&=+$#").as_bytes());
    if let Some(query) = request.query.split('?').next().filter(|q| !q.is_empty()) {
        sink(b"?");
        sink(escape(&escape(query, b""), b"").as_bytes());
    }
    lines.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
    for (i, (name, value)) in lines.iter().enumerate() {
        sink(if i == 0 { b"\n" } else { b";" });
        sink(name.as_str().as_bytes());
        sink(b":");
        sink(value);
    }
    sink(b"\n");
    sink(request.body);
    Ok(())
}

/// Percent-escapes all but letters, digits, JavaScript's unreserved marks and `kept`.
fn escape(text: &str, kept: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b if b.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&b) || kept.contains(&b) => out.push(char::from(b)),
            b => {
                let _ = write!(out, "%{b:02X}");
            }
        }
    }
    out
}

/// CRC-32 as in ISO 3309, zlib and PNG: the polynomial reversed, all ones before and after.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| CRC_TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ (crc >> 8))
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut at: u32 = 0;
    while at < 256 {
        let (mut crc, mut bit) = (at, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        table[at as usize] = crc;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crc_is_the_one_that_everybody_checks_with() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn a_port_is_added_where_there_is_none_and_taken_away_where_there_is_one() {
        for (url, with, without) in [
            ("https://a.b/c?d=e:f", "https://a.b:443/c?d=e:f", "https://a.b/c?d=e:f"),
            ("https://a.b:443/c", "https://a.b:443/c", "https://a.b/c"),
            ("http://a.b?x=http://c:1", "http://a.b:80?x=http://c:1", "http://a.b?x=http://c:1"),
            ("https://a.b:8443", "https://a.b:8443", "https://a.b"),
            ("http://[::1]/x", "http://[::1]:80/x", "http://[::1]/x"),
            ("http://[::1]:8080/x", "http://[::1]:8080/x", "http://[::1]/x"),
        ] {
            assert_eq!((with_port(url).as_str(), without_port(url).as_str()), (with, without), "{url}");
        }
    }

    #[test]
    fn a_form_is_sorted_and_of_repeated_values_one_counts() {
        let mut text = Vec::new();
        sorted_form(b"MessageSid=SM1&Media=b&Media=a&Media=a", |b| text.extend_from_slice(b));
        assert_eq!(text, b"MediaaMediabMessageSidSM1");
    }

    #[test]
    fn an_escaped_body_is_ascii() {
        let mut text = Vec::new();
        escaped("a/é☃😀\u{7f}".as_bytes(), |b| text.extend_from_slice(b));
        assert_eq!(String::from_utf8_lossy(&text), r"a\/\u00e9\u2603\ud83d\ude00\u007f");
    }

    #[test]
    fn plivo_writes_a_question_mark_before_fields() {
        let text = |url, body: &str| plivo_url(url, body.as_bytes());
        assert_eq!(text("https://answer.url", "To=2&From=1"), "https://answer.url?From1To2");
        assert_eq!(text("https://a.b/c?z=1&a=2", "To=2"), "https://a.b/c?a=2&z=1.To2");
        assert_eq!(text("https://a.b/c", ""), "https://a.b/c");
    }
}
