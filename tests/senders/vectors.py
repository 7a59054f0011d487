#!/usr/bin/env python3
"""Signs a sample delivery by a preset's rule, in Python, and prints the preset's [[vectors]].

    python3 tests/senders/vectors.py crates/core/presets/providers/NAME.toml

This is the second implementation that the engine is held to: it shares no code with it, only the preset's own facts.
Needs Python 3.11 and `cryptography`. Keys are test values; vectors-rsa.pem signs nothing else. What it prints is looked
over and pasted into the preset; signatures on P-256 are different in every run.
"""

import base64, hashlib, hmac, json, pathlib, re, sys, tomllib
from email.utils import formatdate
from urllib.parse import parse_qsl, urlencode, urlsplit

NOW = 1760000000
URL = "https://door.example.com/hooks/sender"
SEED = bytes(range(32))
KID = "bfbd5111-8e33-4643-8ced-b2e642a72f3c"
WORDS = {"raw": "s3cret-of-the-tests", "html_text": "s3cret-of-the-tests", "hex": SEED.hex(),
         "base64": base64.b64encode(SEED).decode(), "whsec": "whsec_" + base64.b64encode(SEED).decode(),
         "whsec_or_raw": "whsec_" + base64.b64encode(SEED).decode(), "named_sha1": "public-key|private-key"}


def keys(rule):
    """The source's secret, another one of the same form, and what signs with the first."""
    scheme, form = rule["scheme"], rule.get("secret", "raw")
    if scheme in ("hmac", "digest") or rule.get("algorithm") == "HS256":
        other = {"hex": "ff" * 32, "base64": base64.b64encode(b"\xff" * 32).decode(),
                 "whsec": "whsec_" + base64.b64encode(b"\xff" * 32).decode(), "named_sha1": "public-key|another"}
        other["whsec_or_raw"] = other["whsec"]
        return WORDS[form], other.get(form, "another-s3cret"), key_of(form, WORDS[form])
    from cryptography.hazmat.primitives import serialization as ser
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    if scheme == "ed25519":
        private = ed25519.Ed25519PrivateKey.from_private_bytes(SEED)
        raw = lambda k: k.public_key().public_bytes(ser.Encoding.Raw, ser.PublicFormat.Raw)
        write = {"hex": bytes.hex, "base64": lambda b: base64.b64encode(b).decode(),
                 "whsec": lambda b: "whpk_" + base64.b64encode(b).decode()}[form]
        another = ed25519.Ed25519PrivateKey.from_private_bytes(SEED[::-1])
        return write(raw(private)), write(raw(another)), private
    der = lambda k: base64.b64encode(
        k.public_key().public_bytes(ser.Encoding.DER, ser.PublicFormat.SubjectPublicKeyInfo)).decode()
    if "key_request" in rule:
        return "client-id:s3cret-of-the-tests", None, ec.derive_private_key(7**60, ec.SECP256R1())
    if scheme.startswith("ecdsa") or rule.get("algorithm") == "ES256":
        private, another = ec.derive_private_key(7**60, ec.SECP256R1()), ec.derive_private_key(11**60, ec.SECP256R1())
        return der(private), der(another), private
    private = ser.load_pem_private_key((pathlib.Path(__file__).parent / "vectors-rsa.pem").read_bytes(), None)
    return der(private), None, private


def key_of(form, text):
    body = re.sub(r"^(v1,)?whsec_", "", text)
    return {"raw": lambda: text.encode(), "html_text": lambda: text.encode(), "hex": lambda: bytes.fromhex(text),
            "base64": lambda: base64.b64decode(text), "whsec": lambda: base64.b64decode(body),
            "whsec_or_raw": lambda: base64.b64decode(body) if body != text else text.encode(),
            "named_sha1": lambda: hashlib.sha1(text.split("|")[1].encode()).digest()}[form]()


def at(value, path):
    for step in [s for s in path.split(".") if s]:
        value = value[int(step)] if isinstance(value, list) else value.get(step) if isinstance(value, dict) else None
        if value is None:
            return None
    return value


def lookup(place, request, element):
    kind, name = place.split(":", 1)
    if kind == "header":
        return request["headers"].get(name.lower())
    if kind == "query":
        return dict(parse_qsl(urlsplit(request["url"]).query, keep_blank_values=True)).get(name)
    if kind == "form":
        return dict(parse_qsl(request["body"], keep_blank_values=True)).get(name)
    found = at(element, name)
    return {True: "true", False: "false"}.get(found, found) if isinstance(found, bool) else found


def text(template, request, element, ts, secret):
    def piece(m):
        word = m.group(1)
        url = request["url"]
        fields = parse_qsl(request["body"], keep_blank_values=True)
        plain = {"body": lambda: request["body"], "ts": lambda: ts, "method": lambda: "POST", "url": lambda: url,
                 "secret": lambda: secret, "path": lambda: urlsplit(url).path, "payload": lambda: request["body"],
                 "sorted_form": lambda: "".join(k + v for k, v in sorted(set(fields))),
                 "url_with_port": lambda: url.replace(".com/", ".com:443/"), "url_without_port": lambda: url}
        if word in plain:
            return plain[word]()
        if word == "plivo_url":
            return url + ("?" if fields else "") + "".join(k + v for k, v in sorted(fields))
        if word.startswith("php_form:"):
            kept = sorted((k, v) for k, v in fields if k != word[9:])
            php = lambda t: f's:{len(t.encode())}:"{t}";'
            return f"a:{len(kept)}:{{" + "".join(php(k) + php(v) for k, v in kept) + "}"
        if word.startswith("canonical:"):
            names = request["headers"][word[10:]].split(",")
            lines = ";".join(f"{n}:{request['headers'][n]}" for n in names)
            return "\n".join(["POST", urlsplit(url).path, lines, request["body"]])
        value = lookup(re.sub(r"^lower:", "", word).rstrip("?"), request, element)
        return "" if value is None else str(value).lower() if word.startswith("lower:") else str(value)
    return re.sub(r"\{([a-z][^}]*)\}", piece, template)


def encode(raw, how):
    return {"hex": raw.hex, "hex_any_case": lambda: raw.hex().upper(), "base64": lambda: base64.b64encode(raw).decode(),
            "base64url": lambda: base64.urlsafe_b64encode(raw).decode().rstrip("=")}[how]()


def signature(rule, key, message):
    scheme, message = rule["scheme"], message.encode()
    if scheme == "hmac":
        return hmac.new(key, message, rule["hash"]).digest()
    if scheme == "digest":
        return hashlib.new(rule["hash"], message).digest()
    if scheme == "ed25519":
        return key.sign(message)
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding
    if scheme.startswith("ecdsa"):
        return key.sign(message, ec.ECDSA(hashes.SHA256()))
    return key.sign(message, padding.PKCS1v15(), hashes.SHA1() if scheme == "rsa-sha1" else hashes.SHA256())


def put(value, path, new):
    """A copy of `value` with `new` at `path`, as text-free JSON would hold it."""
    steps = path.split(".")
    here = value
    for step, following in zip(steps, steps[1:] + [None]):
        if following is None:
            if isinstance(here, list):
                here.append(new)
            else:
                here[step] = new
        elif isinstance(here, list):
            if not here:
                here.append([] if following.isdigit() else {})
            here = here[0]
        else:
            here = here.setdefault(step, [] if following.isdigit() else {})


def first_place(templates):
    for template in templates:
        yield from re.findall(r"(?:header|body|form|query):[^}?]+", template)


def sample(preset):
    """A delivery with something in every place that the preset names, not signed yet."""
    rule, event = preset["verify"], preset.get("event", {})
    listed = lambda key: [event[key]] if isinstance(event.get(key), str) else event.get(key, [])
    element, headers, form, query = {}, {}, {}, {}
    values = {"id": "evt_1", "type": "thing.made", "subject": "thing_1", "actor": "mona", "time": "2025-10-09T08:53:20Z"}
    for label, value in values.items():
        for n, place in enumerate(first_place(listed(label)[:1])):
            kind, name = place.split(":", 1)
            value_n = value if n == 0 else f"{n}"
            if kind == "body" and label != "time":
                put(element, name, value_n)
            elif kind == "header" and name.lower() not in str(rule.get("signature", "")).lower():
                headers.setdefault(name.lower(), value_n)
            elif kind == "form":
                form.setdefault(name, value_n)
            elif kind == "query":
                query.setdefault(name, value_n)
    signed = rule.get("signed", [])
    for place in first_place([signed] if isinstance(signed, str) else signed[:1]):
        kind, name = place.split(":", 1)
        if kind == "header" and name.lower() not in headers:
            headers[name.lower()] = "n0nce"
        elif kind == "body" and at(element, name) is None:
            put(element, name, "part")
        elif kind == "query":
            query[name] = "PAY_1"
        elif kind == "form":
            form.setdefault(name, "part")
    for place in rule.get("requires", []):
        headers.setdefault(place.split("|")[0].strip().split(":", 1)[1].lower(), "here")
    element.setdefault("note", "café")
    return element, headers, form, query


def build(preset, now=NOW):
    """One signed delivery: headers, URL and body, and the secrets."""
    rule, payload = preset["verify"], preset.get("payload", {})
    secret, other, key = keys(rule) if rule["scheme"] not in ("token", "basic", "none") else ("s3cret-of-the-tests", "another", None)
    element, headers, form, query = sample(preset)
    unit = rule.get("timestamp_unit", "s")
    ts = {"s": str(now), "s_or_ms": str(now), "ms": str(now * 1000), "http_date": formatdate(now, usegmt=True),
          "rfc3339": f"2025-10-09T{8 + (53*60+20+now-NOW)//3600:02d}:{(53*60+20+now-NOW)//60%60:02d}:{(20+now-NOW)%60:02d}Z"}[unit]
    place = rule.get("timestamp", "")
    if place.startswith("header:"):
        headers[place[7:].lower()] = ts
    elif place.startswith("body:"):
        put(element, place[5:], int(ts) if ts.isdigit() else ts)
    is_form = payload.get("format") == "form"
    places = rule.get("signature", rule.get("token", "header:authorization"))
    where = places if isinstance(places, str) else places[0]
    request = {"headers": headers, "url": URL}
    if rule["scheme"] == "basic":
        secret, other = "door:s3cret", "door:another"

    def body_text():
        if is_form and payload.get("form_json"):
            return urlencode({payload["form_json"]: json.dumps([element] if payload.get("batch") == "[]" else element, ensure_ascii=False)})
        if is_form:
            return urlencode(form or {"note": "café"})
        whole = element
        for path in [rule.get("each") or payload.get("batch")]:
            if path is not None:
                whole = [element]
                for step in reversed([s for s in path[:-2].split(".") if s]):
                    whole = {step: whole}
        return json.dumps(whole, ensure_ascii=False, separators=(",", ":"))

    def proof(value):
        kind, name = where.split(":", 1)
        if kind == "header":
            headers[name.lower()] = value
        elif kind == "query":
            query[name] = value
        elif kind == "body":
            put(element, name, value)
        else:
            form[name] = value

    for m in re.findall(r"\{canonical:([^}]+)\}", str(rule.get("signed", ""))):
        headers[m] = f"{m},{place[7:].lower()}"
    if rule["scheme"] in ("token", "none"):
        if rule["scheme"] == "token":
            proof(rule.get("prefix", "") + secret)
    elif rule["scheme"] == "basic":
        headers["authorization"] = "Basic " + base64.b64encode(secret.encode()).decode()
    elif rule["scheme"] == "jwt":
        request["body"] = body_text()
        digest = hashlib.sha256(request["body"].encode()).digest()
        claims = {"iat": now} | ({} if "key_request" in rule else {"exp": now + 300})
        claims |= {"iss": rule["issuer"]} if "issuer" in rule else {}
        claims |= {rule["url_claim"]: URL} if "url_claim" in rule else {}
        claims |= {rule["body_claim"]: encode(digest, rule["body_claim_encoding"])} if "body_claim" in rule else {}
        part = lambda v: encode(json.dumps(v, separators=(",", ":")).encode(), "base64url")
        named = {"kid": KID} if "key_request" in rule else {}
        message = part({"alg": rule["algorithm"]} | named | {"typ": "JWT"}) + "." + part(claims)
        if rule["algorithm"] == "HS256":
            tag = hmac.new(key, message.encode(), "sha256").digest()
        elif rule["algorithm"] == "ES256":
            from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
            r, s = decode_dss_signature(signature({"scheme": "ecdsa"}, key, message))
            tag = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        else:
            tag = signature({"scheme": "rsa-sha256"}, key, message)
        proof(rule.get("prefix", "") + message + "." + encode(tag, "base64url"))
    else:
        template = rule["signed"] if isinstance(rule["signed"], str) else rule["signed"][0]
        request["url"] = URL + ("?" + urlencode(query) if query else "")
        request["body"] = body_text()
        made = signature(rule, key, text(template, request, element, ts, secret))
        value = rule.get("prefix", "") + ("public-key" + rule["after"] if "after" in rule else "") + encode(made, rule["encoding"])
        if place.startswith("signature:"):
            value = place[10:] + ts + rule["separator"] + value
        elif rule.get("skip"):
            value = rule["skip"][0] + ts + rule["separator"] + value
        proof(value)
    request["url"] = URL + ("?" + urlencode(query) if query else "")
    request["body"] = body_text()
    headers["content-type"] = "application/x-www-form-urlencoded" if is_form else "application/json"
    return request, secret, other, where


def quote(value):
    return json.dumps(value, ensure_ascii=False)


def jwk(private, **changed):
    """What the sender answers when it is asked for the key `KID` (RFC 7518, section 6.2)."""
    numbers = private.public_key().public_numbers()
    part = lambda n: encode(n.to_bytes(32, "big"), "base64url")
    key = {"alg": "ES256", "crv": "P-256", "kid": KID, "kty": "EC", "use": "sig", "x": part(numbers.x),
           "y": part(numbers.y), "created_at": NOW - 86400, "expired_at": None}
    return json.dumps({"key": key | changed, "request_id": "r1"})


def handed_out(rule, request, secret):
    """What differs where the key is handed out by its name: the same delivery with other answers of the sender."""
    from cryptography.hazmat.primitives.asymmetric import ec
    private, another = keys(rule)[2], ec.derive_private_key(11**60, ec.SECP256R1())
    right = encode(private.public_key().public_numbers().x.to_bytes(32, "big"), "base64url")
    cases = [("another key", jwk(another), "signature_mismatch"), ("a key that has expired", jwk(private, expired_at=NOW - 1), "key_expired"),
             ("a key of another name", jwk(private, kid="4a5d1d5c-2b0e-4f9c-9d0a-0c7a9ad5e0aa"), "key_unknown"),
             ("no key of this name", '{"keys": []}', "key_unknown"), ("a key on another curve", jwk(private, crv="secp256k1"), "key_unavailable"),
             ("a point that is not on the curve", jwk(private, y=right), "key_unavailable"),
             ("a key of another algorithm", jwk(private, alg="ES384"), "key_unknown"), ("what is no key", "gone", "key_unavailable")]
    out = [show(note, request | {"key": key}, secret, expect) for note, key, expect in cases]
    header, rest = request["headers"][rule["token"][7:]].split(".", 1)
    stated = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    part = lambda v: encode(json.dumps(v, separators=(",", ":")).encode(), "base64url")
    for note, changed, expect in [("the algorithm none", {"alg": "none"}, "signature_malformed"),
                                  ("an HMAC with the public key", {"alg": "HS256"}, "signature_malformed"),
                                  ("a name that no key has", {"kid": "../../item/get"}, "key_unknown"),
                                  ("a name without end", {"kid": "a" * 65}, "key_unknown"), ("no name of a key", {"kid": None}, "key_unknown")]:
        message = part(stated | changed) + "." + rest.split(".")[0]
        mac = hmac.new(request["key"].encode(), message.encode(), "sha256").digest()
        tag = "" if changed.get("alg") == "none" else encode(mac, "base64url") if "alg" in changed else rest.split(".")[1]
        token = {rule["token"][7:]: message + "." + tag}
        out.append(show(note, request | {"headers": request["headers"] | token}, secret, expect))
    return out


def show(note, request, secret, expect, labels=None, now=NOW):
    headers = ", ".join(f"{name} = {quote(value)}" for name, value in request["headers"].items())
    lines = ["[[vectors]]", f"note = {quote(note)}"]
    if request["show_url"]:
        lines.append(f"url = {quote(request['url'])}")
    lines.append(f"secrets = [{quote(secret)}]")
    if "key" in request:
        lines.append(f"key = {quote(request['key'])}")
    lines += [f"now = {now}", f"headers = {{ {headers} }}",
              f"body = {quote(request['body'])}", f"expect = {quote(expect)}"]
    if labels:
        lines.append("labels = { " + ", ".join(f"{k} = {quote(v)}" for k, v in labels.items()) + " }")
    return "\n".join(lines)


def vectors(preset):
    rule = preset["verify"]
    request, secret, other, where = build(preset)
    is_proof = rule["scheme"] in ("token", "basic")
    uses_url = "url_claim" in rule or "url" in str(rule.get("signed", "")) + str(rule.get("url_claim", "")) + where or "query:" in str(rule) or "canonical:" in str(rule)
    request["show_url"] = uses_url
    if "key_request" in rule:
        request["key"] = jwk(keys(rule)[2])
    out = []
    labels = {}
    for label in ("id", "type"):
        listed = preset.get("event", {}).get(label)
        if listed and re.fullmatch(r"(header|body):[^{}]+", listed[0]):
            labels[label] = {"id": "evt_1", "type": "thing.made"}[label]
    out.append(show("a delivery", request, secret, "accepted", labels))
    if not is_proof:
        changed = dict(request, body=request["body"].replace("caf", "cof").replace("part", "tarp") if "note" in request["body"] and rule["scheme"] != "x" else request["body"] + " ")
        if changed["body"] != request["body"] and any(w in str(rule) for w in ("{body}", "{payload}", "sorted_form", "php_form", "body_claim", "canonical", "plivo")):
            out.append(show("one letter of the body changed", changed, secret,
                            "digest_mismatch" if rule["scheme"] == "jwt" else "signature_mismatch"))
        elif "body:" in str(rule.get("signed", "")) + str(rule.get("each", "")) or "form:" in str(rule.get("signed")):
            changed = dict(request, body=request["body"].replace("part", "tarp").replace("evt_1", "evt_2"))
            out.append(show("a signed field changed", changed, secret, "signature_mismatch"))
    if other and rule["scheme"] != "none":
        out.append(show("another secret", request, other, "credential_mismatch" if is_proof else "signature_mismatch"))
    kind, name = where.split(":", 1)
    if kind == "header" and rule["scheme"] != "none":
        bare = dict(request, headers={k: v for k, v in request["headers"].items() if k != name.lower()})
        out.append(show("no " + ("credential" if is_proof else "signature"), bare, secret,
                        "credential_missing" if is_proof else "signature_missing"))
    elif kind == "query" and is_proof:
        out.append(show("no credential", dict(request, url=URL), secret, "credential_missing"))
    if "tolerance" in rule and ("timestamp" in rule or rule["scheme"] == "jwt"):
        seconds = {"s": 1, "m": 60, "h": 3600}[rule["tolerance"][-1]] * int(rule["tolerance"][:-1])
        if rule["scheme"] == "jwt":
            lasts = 0 if "key_request" in rule else 300
            out.append(show("expired", request, secret, "timestamp_stale", now=NOW + lasts + 1 + seconds))
        else:
            out.append(show(f"{seconds + 1} s old", request, secret, "timestamp_stale", now=NOW + seconds + 1))
            out.append(show(f"{seconds + 1} s ahead", request, secret, "timestamp_future", now=NOW - seconds - 1))
    return out + (handed_out(rule, request, secret) if "key_request" in rule else [])


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print("\n\n".join(vectors(tomllib.loads(pathlib.Path(path).read_text()))))
