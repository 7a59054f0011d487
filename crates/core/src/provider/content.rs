//! What a signature says of the body, in one spelling. Called by `ingest`, which knows a captured delivery again by it.

use super::select::Place;
use super::signed::{Piece, Template, feed_payload};
use super::{Request, Verifier, canonical};

impl Verifier {
    /// What the signature says of the body, for knowing a delivery again. Where it speaks of a form's fields and not of the
    /// bytes, whoever captured a delivery can write it otherwise, and the signature stays right: all these are one content.
    /// None: the body as it is.
    pub fn signed_content(&self, request: &Request<'_>) -> Option<Vec<u8>> {
        let signed = self.preset().scheme.signed()?;
        // A digest in a signed place binds the bytes themselves.
        let digested = signed.digest.as_ref().is_some_and(|place| place.exact(request, None).is_ok());
        if digested { None } else { signed.templates.iter().find_map(|t| of_body(t, request)) }
    }
}

/// What of the body this text holds, if it is not the raw bytes: the one spelling of all bodies that have this signature.
fn of_body(template: &Template, request: &Request<'_>) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    let mut sink = |bytes: &[u8]| content.extend_from_slice(bytes);
    let piece = template.pieces().iter().find(|p| {
        matches!(
            p,
            Piece::Payload
                | Piece::EscapedBody
                | Piece::SortedForm
                | Piece::PhpForm(_)
                | Piece::PlivoUrl
                | Piece::At(Place::Form(_))
        )
    })?;
    match piece {
        Piece::Payload => feed_payload(request, sink).ok()?,
        Piece::EscapedBody => canonical::escaped(&canonical::plain_slashes(request.body), sink),
        Piece::PhpForm(without) => sink(&canonical::php_form(request.body, without).ok()?),
        Piece::At(field) => sink(&field.exact(request, None).ok()?),
        _ => canonical::sorted_form(request.body, sink),
    }
    Some(content)
}
