//! What each preset file says is what the engine does.

use doorbell_core::Timestamp;
use doorbell_core::provider::{self, Confidence, Docs, Preset, Scheme, Vector, Verifier, VerifyOptions, Within};
use std::sync::Arc;

use crate::{Rung, headers, secrets, view};

fn every_preset() -> Vec<Arc<Preset>> {
    let mut presets = Vec::new();
    for (file, text) in provider::files() {
        let preset = Preset::parse(text, file).unwrap_or_else(|faults| {
            let all: Vec<String> = faults.iter().map(ToString::to_string).collect();
            panic!("{}", all.join("\n"))
        });
        assert_eq!(format!("{}.toml", preset.id), *file, "a file is named after the preset's id");
        presets.push(Arc::new(preset));
    }
    presets
}

fn rung(vector: &Vector) -> Rung {
    Rung {
        method: vector.method.clone(),
        url: vector.url.clone(),
        headers: headers(&vector.headers),
        body: vector.body.clone().into(),
    }
}

#[test]
fn every_file_is_a_preset_with_a_good_and_a_bad_vector() {
    let presets = every_preset();
    assert_eq!(presets.len(), provider::presets().len());
    for preset in presets {
        let good = preset.vectors.iter().filter(|v| v.refused.is_none()).count();
        let bad = preset.vectors.len() - good;
        assert!(good > 0, "{} has no vector that is accepted", preset.id);
        assert!(bad > 0 || preset.scheme == Scheme::None, "{} has no vector that is refused", preset.id);
        assert!(preset.confidence == Confidence::Own || !preset.source.is_empty(), "{} names no source", preset.id);
        assert_ne!(preset.docs, Docs::default(), "{} says nothing to people", preset.id);
    }
}

#[test]
fn every_vector_gets_its_verdict() {
    let mut wrong = Vec::new();
    for preset in every_preset() {
        for vector in &preset.vectors {
            let verifier =
                Verifier::new(Arc::clone(&preset), &secrets(&vector.secrets), VerifyOptions::default()).unwrap();
            let verdict = match &vector.key {
                Some(key) => rung(vector).verify_with(&verifier, key, Timestamp::from_secs(vector.now_s)),
                None => rung(vector).verify(&verifier, Timestamp::from_secs(vector.now_s)),
            };
            let seen = verdict.as_ref().err().map(|refusal| refusal.code().to_owned());
            if seen != vector.refused {
                wrong.push(format!("{}: {}: {verdict:?}, wanted {:?}", preset.id, vector.note, vector.refused));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_vector_gets_its_labels() {
    for preset in every_preset() {
        for vector in &preset.vectors {
            let rung = rung(vector);
            let labels = rung.with(|request| preset.labels(request, &view(&preset, &rung)));
            for (name, wanted) in &vector.labels {
                let seen = match name.as_str() {
                    "id" => &labels.id,
                    "type" => &labels.event_type,
                    "subject" => &labels.subject,
                    "actor" => &labels.actor,
                    other => panic!("{}: `{other}` is no label", preset.id),
                };
                assert_eq!(seen.as_deref(), Some(wanted.as_str()), "{}: {}: {name}", preset.id, vector.note);
            }
        }
    }
}

#[test]
fn the_paths_that_a_preset_names_are_enough_for_its_labels() {
    for preset in every_preset() {
        let paths = preset.body_paths();
        for vector in preset.vectors.iter().filter(|v| v.refused.is_none()) {
            let rung = rung(vector);
            let whole = view(&preset, &rung);
            let mut few = serde_json::json!({});
            for path in &paths {
                let pointer: String = path.iter().map(|step| format!("/{step}")).collect();
                let Some(value) = whole.pointer(&pointer) else { continue };
                let last = path.iter().fold(&mut few, |here, step| {
                    if here.is_null() {
                        *here = serde_json::json!({});
                    }
                    &mut here[step.as_str()]
                });
                *last = value.clone();
            }
            rung.with(|r| assert_eq!(preset.labels(r, &few), preset.labels(r, &whole), "{}", preset.id));
        }
    }
}

#[test]
fn an_id_counts_as_signed_only_where_the_signature_covers_it() {
    let signed = |id: &str| {
        let preset = provider::get(id).unwrap();
        let vector = preset.vectors.iter().find(|v| v.labels.iter().any(|(name, _)| name == "id")).unwrap();
        let rung = rung(vector);
        rung.with(|r| preset.labels(r, &view(preset, &rung))).id_signed
    };
    for id in ["stripe", "slack", "standard-webhooks", "svix", "gitlab-signing-token"] {
        assert!(signed(id), "{id}");
    }
    for id in ["github", "gitlab", "hmac", "bearer", "basic", "api-key", "none"] {
        assert!(!signed(id), "{id}");
    }
}

#[test]
fn slack_is_answered_its_challenge_and_only_that() {
    let slack = provider::get("slack").unwrap();
    let vector = slack.vectors.iter().find(|v| v.note.starts_with("the handshake, signed")).unwrap();
    let verifier = Verifier::new(Arc::clone(slack), &secrets(&vector.secrets), VerifyOptions::default()).unwrap();
    let rung = rung(vector);
    let checked = rung.verify(&verifier, Timestamp::from_secs(vector.now_s)).unwrap();
    let answer = rung.with(|r| verifier.handshake(r, &view(slack, &rung), &checked)).unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "3eZbrw1a"));
    assert_eq!(answer.headers["content-type"], "text/plain");
    let event = serde_json::json!({"type": "event_callback", "challenge": "3eZbrw1a"});
    assert_eq!(rung.with(|r| verifier.handshake(r, &event, &checked)), None);
}

#[test]
fn every_fault_of_a_file_is_told_at_once_with_its_line() {
    let text = r#"id = "x"
name = "X"
colour = "red"

[verify]
scheme = "hmac"
hash = "md5"
secret = "raw"
signature = "haeder:x"
ecnoding = "hex"
signed = "{body"
timestamp = "header:t"

[event]
id = ["body:"]

[[vectors]]
note = "n"
"#;
    let faults = Preset::parse(text, "x.toml").unwrap_err();
    let all: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let told = |line: usize, word: &str| {
        let hit = faults.iter().any(|f| f.line == line && f.message.contains(word));
        assert!(hit, "line {line}, {word}:\n{}", all.join("\n"));
    };
    told(3, "colour");
    told(7, "md5");
    told(9, "haeder");
    told(10, "did you mean `encoding`?");
    told(11, "never closes");
    told(12, "timestamp_unit");
    told(12, "tolerance");
    told(15, "names nothing");
    told(17, "expect");
}

#[test]
fn an_unsound_rule_is_a_fault() {
    let faulty = |verify: &str, word: &str| {
        let text = format!("id = \"x\"\nname = \"X\"\nkeep_headers = [\"x-s\"]\n[verify]\n{verify}");
        let faults = Preset::parse(&text, "x.toml").unwrap_err();
        assert!(faults.iter().any(|f| f.message.contains(word)), "{word}: {faults:?}");
    };
    let hmac =
        "scheme = \"hmac\"\nhash = \"sha256\"\nsecret = \"raw\"\nencoding = \"hex\"\nsignature = \"header:x-sig\"\n";
    let time = "timestamp = \"header:x-t\"\ntimestamp_unit = \"s\"\ntolerance = \"5m\"\n";
    faulty("scheme = \"jws\"", "`jws`: use one of hmac");
    faulty(&format!("{hmac}{time}signed = \"{{body}}\""), "not signed, so anybody can renew it");
    faulty(&format!("{hmac}signed = \"{{ts}}{{body}}\""), "does not say where it stands");
    faulty(&format!("{hmac}signed = \"{{secret}}{{body}}\""), "belongs to the scheme \"digest\"");
    faulty(&format!("{}signed = \"{{body}}\"", hmac.replace("hmac", "digest")), "proves nothing");
    faulty("scheme = \"token\"\ntoken = \"header:x-s\"", "never kept");
    let named = "scheme = \"jwt\"\ntoken = \"header:x-t\"\nrequired = \"iat\"\ntolerance = \"5m\"\nkey_request = \"https://x.example/k\"\n";
    faulty(&format!("{named}algorithm = \"ES256\""), "with `key_request` add `body_claim`");
    faulty(&format!("{named}algorithm = \"RS256\""), "only ES256's are built");
    faulty(&format!("{named}algorithm = \"ES256\"\nkey_set = \"https://x.example/s\""), "not both");
    faulty(&named.replace("https:", "http:"), "plain https URL");
}

#[test]
fn an_id_for_a_whole_batch_is_a_fault() {
    let of = |id: &str, batch: &str| {
        let text = format!(
            "id = \"x\"\nname = \"X\"\nsettable = [\"id_header\"]\n[verify]\nscheme = \"token\"\ntoken = \"header:x-s\"\n\
             [event]\nid = {id}\n[payload]\n{batch}"
        );
        Preset::parse(&text, "x.toml")
    };
    let batch = "batch = \"data.list[]\"";
    for outside in ["[\"header:x-id\"]", "[\"body:id\", \"query:id\"]", "[\"form:id\"]", "[\"{header:a}-{query:b}\"]"] {
        let faults = of(outside, batch).unwrap_err();
        assert_eq!((faults.len(), faults[0].line), (1, 8), "{outside}: {faults:?}");
        assert!(faults[0].message.contains("Write for example `body:id` for `data.list.0.id`"), "{faults:?}");
        assert!(of(outside, "").is_ok(), "{outside} is good where a request is one event");
    }
    let good = of("[\"body:id\", \"{header:x-id}/{body:number}\"]", batch).unwrap();
    let faults = good.with_settings(&[("id_header", "x-id")]).unwrap_err();
    assert!(faults[0].contains("must stand in each element"), "{faults:?}");
    assert!(of("[]", "").unwrap().with_settings(&[("id_header", "x-id")]).is_ok());
}

#[test]
fn a_source_sets_what_the_preset_allows_and_nothing_else() {
    let hmac = provider::get("hmac").unwrap();
    let set = [("header", "x-hub"), ("hash", "sha512"), ("encoding", "base64"), ("prefix", "sig=")];
    let changed = hmac.with_settings(&set).unwrap();
    let signed = changed.scheme.signed().unwrap();
    assert_eq!(signed.places[0].to_string(), "header x-hub");
    assert_eq!(changed.scheme.name(), "hmac-sha512");
    let faults = hmac.with_settings(&[("hash", "md5"), ("header", "no header"), ("tolerance", "1s")]).unwrap_err();
    assert_eq!(faults.len(), 3, "{faults:?}");
    let faults = provider::get("github").unwrap().with_settings(&[("hash", "sha1")]).unwrap_err();
    assert!(faults[0].contains("cannot be set on provider `github`"));
}

#[test]
fn a_source_s_own_preset_is_read_from_its_table_with_the_file_s_lines() {
    let text = "[sources.shop]\nkind = \"webhook\"\n\n[sources.shop.custom.verify]\nscheme = \"token\"\ntoken = \"query:key\"\n";
    let parse = |text: &str| {
        let table = toml::de::DeTable::parse(text).unwrap();
        let custom = ["sources", "shop", "custom"];
        let found = custom.iter().fold(table.get_ref(), |t, key| t.get(*key).unwrap().get_ref().as_table().unwrap());
        let table_name = "sources.shop.custom";
        Preset::parse_custom(found, &Within { text, file_name: "doorbell.toml", table_name, offset: 0, id: "shop" })
    };
    let preset = parse(text).unwrap();
    assert_eq!((preset.id.as_str(), preset.scheme.name()), ("shop", "token"));
    let faults = parse(&text.replace("query", "qurey")).unwrap_err();
    assert_eq!((faults[0].line, faults[0].file.as_str()), (6, "doorbell.toml"));
}
