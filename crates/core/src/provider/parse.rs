//! From a preset's TOML to a [`Preset`], with every fault at once. The keys are explained in `presets/providers/README.md`.
//!
//! What parses is also sound: a timestamp that is not signed, a kept header that holds the signature or a template that
//! could give the secret away are faults here, so that no such preset ever runs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, Method};
use toml::de::DeTable;

use super::keep::is_never_kept;
use super::parse_handshake::{handshake, pairing};
use super::parse_verify::verify;
use super::preset::{
    CloudEvents, Confidence, Docs, EventRules, Format, PayloadRules, Preset, SETTINGS, Setting, Vector,
};
use super::read::{At, PresetFault, Report, Section};
use super::select::Place;
use super::signed::Template;

impl Preset {
    /// Reads a preset from its TOML. `file_name` is for the faults only.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, Vec<PresetFault>> {
        let report = Report::new(text, file_name);
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            report.fault(error.span().map_or(0, |s| s.start), error.message());
        }
        if !errors.is_empty() {
            return Err(report.into_faults());
        }
        sound(read(Section::new("", 0, table.get_ref(), &report), None), report)
    }

    /// Reads a preset that a source writes for itself, as a table of the configuration. It needs no `id` and no `name`.
    pub fn parse_custom(table: &DeTable<'_>, within: &Within<'_>) -> Result<Self, Vec<PresetFault>> {
        let report = Report::new(within.text, within.file_name);
        let section = Section::new(within.table_name, within.offset, table, &report);
        sound(read(section, Some(within.id)), report)
    }
}

/// Where a table of a larger file stands, so that faults can name their lines.
#[derive(Clone, Copy, Debug)]
pub struct Within<'t> {
    /// The whole text.
    pub text: &'t str,
    /// What the file is called in faults.
    pub file_name: &'t str,
    /// The table's full name, such as `sources.shop.custom`.
    pub table_name: &'t str,
    /// Where the table starts in the text, in bytes.
    pub offset: usize,
    /// The id and name that the preset gets.
    pub id: &'t str,
}

/// The preset, if nothing was wrong with it.
fn sound(preset: Option<Preset>, report: Report<'_>) -> Result<Preset, Vec<PresetFault>> {
    let faults = report.into_faults();
    match preset {
        Some(preset) if faults.is_empty() => Ok(preset),
        _ => Err(faults),
    }
}

fn read(root: Section<'_, '_>, given_id: Option<&str>) -> Option<Preset> {
    let text = |key, example| match given_id {
        Some(id) => Some(root.text(key).map_or_else(|| id.to_owned(), |t| t.value)),
        None => root.required(key, example).map(|t| t.value),
    };
    let id = text("id", "\"github\"");
    let name = text("name", "\"GitHub\"");
    let confidences = [
        ("sdk", Confidence::Sdk),
        ("docs", Confidence::Docs),
        ("secondary", Confidence::Secondary),
        ("own", Confidence::Own),
    ];
    let confidence = root.word("confidence", &confidences).unwrap_or(Confidence::Own);
    let source = values(root.texts("source"));
    if !root.has("verify") {
        root.fault(
            root.offset,
            "[verify] is missing: say how requests are checked, or write `scheme = \"none\"` in it",
        );
    }
    let rules = root.section("verify").and_then(verify);
    let payload = payload(root.section("payload"));
    let event = root.section("event").map(|section| event(section, &payload)).unwrap_or_default();
    let handshakes = root.sections("handshakes").into_iter().filter_map(handshake).collect();
    let pairing = root.section("pairing").and_then(pairing);
    let reply = root.text("reply").map(|t| t.value);
    let keep = root.texts("keep_headers");
    let secrets = root.texts("secrets").into_iter().filter_map(|t| place(&root, t)).collect();
    let settable = settable(&root);
    let docs = root.section("docs").map(docs).unwrap_or_default();
    let vectors = root.sections("vectors").into_iter().filter_map(vector).collect();
    let preset = (|| {
        let (id, name, (scheme, each)) = (id?, name?, rules?);
        let keep_headers = Vec::new();
        Some(Preset {
            id,
            name,
            confidence,
            source,
            scheme,
            each,
            event,
            payload,
            handshakes,
            pairing,
            reply,
            keep_headers,
            secrets,
            settable,
            docs,
            vectors,
        })
    })();
    let preset = preset.map(|p| keep_headers(&root, p, keep));
    if preset.as_ref().is_some_and(|p| p.payload.cloudevents != CloudEvents::No && p.has_secret_in_body()) {
        let problem = "a secret in the body and `cloudevents` do not go together: it would be one of the attributes";
        root.fault(root.offset, problem);
    }
    root.finish();
    preset
}

fn values(texts: Vec<At<String>>) -> Vec<String> {
    texts.into_iter().map(|t| t.value).collect()
}

/// Tells the fault, if it is one, at the place of the text.
pub(super) fn told<T>(section: &Section<'_, '_>, offset: usize, result: Result<T, String>) -> Option<T> {
    result.map_err(|message| section.fault(offset, message)).ok()
}

pub(super) fn place(section: &Section<'_, '_>, text: At<String>) -> Option<Place> {
    told(section, text.offset, Place::parse(&text.value))
}

fn keep_headers(root: &Section<'_, '_>, mut preset: Preset, names: Vec<At<String>>) -> Preset {
    for At { offset, value } in names {
        let Ok(name) = HeaderName::from_bytes(value.as_bytes()) else {
            root.fault(offset, format!("`{value}` cannot be the name of a header"));
            continue;
        };
        if is_never_kept(&preset, &name) {
            root.fault(
                offset,
                format!("header `{name}` carries a secret or a signature and is never kept: take it out"),
            );
        } else {
            preset.keep_headers.push(name);
        }
    }
    preset
}

fn settable(root: &Section<'_, '_>) -> Vec<Setting> {
    let find = |t: At<String>| {
        let found = SETTINGS.iter().find(|(word, _)| *word == t.value).map(|(_, s)| *s);
        told(
            root,
            t.offset,
            found.ok_or_else(|| {
                let all: Vec<&str> = SETTINGS.iter().map(|(w, _)| *w).collect();
                format!("`{}` is nothing that can be set: use {}", t.value, all.join(", "))
            }),
        )
    };
    root.texts("settable").into_iter().filter_map(find).collect()
}

fn event(section: Section<'_, '_>, payload: &PayloadRules) -> EventRules {
    let label = |t: At<String>| {
        let offset = t.offset;
        let template = selector(&section, t)?;
        if let Some(piece) = template.only_for_answers() {
            section.fault(offset, format!("`{piece}` belongs into the answer to a handshake only"));
            return None;
        }
        Some(template)
    };
    let id = |text: At<String>| {
        let offset = text.offset;
        let template = label(text)?;
        told(&section, offset, payload.suits_id(&template).map(|()| template))
    };
    let selectors = |key| section.texts(key).into_iter().filter_map(label).collect();
    let rules = EventRules {
        id: section.texts("id").into_iter().filter_map(id).collect(),
        event_type: selectors("type"),
        subject: selectors("subject"),
        actor: selectors("actor"),
        time: selectors("time"),
    };
    section.finish();
    rules
}

/// `header:x`, or several put together: `{body:a}#{body:b}`.
pub(super) fn selector(section: &Section<'_, '_>, text: At<String>) -> Option<Template> {
    if !text.value.contains('{') {
        return place(section, text).map(Template::at);
    }
    let template = told(section, text.offset, Template::parse(&text.value))?;
    if let Some(piece) = template.only_for_signing() {
        section
            .fault(text.offset, format!("`{piece}` belongs into `signed` only: use header:, body:, query: or form:"));
        return None;
    }
    Some(template)
}

fn payload(section: Option<Section<'_, '_>>) -> PayloadRules {
    let mut rules = PayloadRules {
        format: Format::Auto,
        form_json: None,
        batch: None,
        max_body: None,
        cloudevents: CloudEvents::No,
    };
    let Some(section) = section else { return rules };
    let formats =
        [("json", Format::Json), ("form", Format::Form), ("auto", Format::Auto), ("multipart", Format::Multipart)];
    rules.format = section.word("format", &formats).unwrap_or(Format::Auto);
    rules.form_json = section.text("form_json").map(|t| t.value);
    if rules.format == Format::Multipart && rules.form_json.is_none() {
        section.fault(section.offset, "of a multipart body one field is read: name it with `form_json`");
    }
    rules.max_body = section.size("max_body");
    rules.batch = section.text("batch").and_then(|t| told(&section, t.offset, list_path("batch", &t.value)));
    let words = [("accepted", CloudEvents::Accepted), ("required", CloudEvents::Required)];
    rules.cloudevents = section.word("cloudevents", &words).unwrap_or_default();
    if rules.cloudevents != CloudEvents::No && rules.batch.is_some() {
        section.fault(section.offset, "`cloudevents` has a form for batches of its own: take `batch` out");
    }
    section.finish();
    rules
}

/// `[]` for the body itself, `path.to.it[]` for a list in it.
pub(super) fn list_path(key: &str, text: &str) -> Result<Vec<String>, String> {
    match text.strip_suffix("[]") {
        Some("") => Ok(Vec::new()),
        Some(path) if path.split('.').all(|step| !step.is_empty()) => Ok(path.split('.').map(str::to_owned).collect()),
        _ => Err(format!("`{key}` cannot be `{text}`: write \"[]\" if the body is the list, else \"path.to.it[]\"")),
    }
}

fn docs(section: Section<'_, '_>) -> Docs {
    let text = |key| section.text(key).map(|t| t.value);
    let docs = Docs {
        setup: text("setup"),
        secret_name: text("secret_name"),
        url: text("url"),
        retry: text("retry"),
        retry_span: section.duration("retry_span").map(|t| t.value),
        answer_within: section.duration("answer_within").map(|t| t.value),
        notes: text("notes"),
    };
    section.finish();
    docs
}

fn vector(section: Section<'_, '_>) -> Option<Vector> {
    let note = section.required("note", "\"one byte of the body changed\"");
    let method = section.text("method").map_or(Ok(Method::POST), |t| Method::from_bytes(t.value.as_bytes()));
    let url = section.text("url").map(|t| t.value);
    let headers = section.pairs("headers").into_iter().map(|(name, value)| (name.value, value)).collect();
    let plain = section.text("body").map(|t| t.value.into_bytes());
    let encoded = section.text("body_base64").and_then(|t| {
        told(&section, t.offset, STANDARD.decode(&t.value).map_err(|_| "`body_base64` is not base64".to_owned()))
    });
    let mut secrets = values(section.texts("secrets"));
    secrets.extend(section.text("secret").map(|t| t.value));
    let key = section.text("key").map(|t| t.value);
    let now = section.integer("now");
    let expect = section.required("expect", "\"accepted\", or the code of a refusal");
    let labels = section.pairs("labels").into_iter().map(|(name, value)| (name.value, value)).collect();
    let vector = Some(Vector {
        note: note?.value,
        method: method.ok()?,
        url,
        headers,
        body: encoded.or(plain).unwrap_or_default(),
        secrets,
        key,
        now_s: now.map_or(0, |n| n.value),
        refused: expect.map(|t| t.value).filter(|e| e != "accepted"),
        labels,
    });
    section.finish();
    vector
}
