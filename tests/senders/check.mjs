// What the senders' own SDKs say to requests that somebody has changed, for crates/doorbell/tests/it/senders.rs.
//
// stdin: {"base": <our public URL>, "at": <seconds since 1970>, "secrets": {"github": "…", …}, "requests": [{"provider",
// "path", "headers": [[name, value], …], "body_base64"}, …]}
// stdout: one JSON line for each request, in order: {"accepted": true or false}

import { text } from "node:stream/consumers";

import { setClock } from "./clock.mjs";
import { vendors } from "./vendors.mjs";

const { base, at, secrets, requests } = JSON.parse(await text(process.stdin));
setClock(at);

/** As node's own server hands headers on: those of one name are joined. */
const joined = (pairs) => {
  const headers = {};
  for (const [name, value] of pairs) {
    headers[name] = name in headers ? `${headers[name]}, ${value}` : value;
  }
  return headers;
};

for (const { provider, path, headers, body_base64 } of requests) {
  const body = Buffer.from(body_base64, "base64");
  const request = { headers: joined(headers), body, text: body.toString("utf8"), url: base + path };
  let accepted = false;
  try {
    accepted = await vendors[provider].accepts(secrets[provider], request);
  } catch {
    // An exception is how most SDKs say no.
  }
  process.stdout.write(`${JSON.stringify({ accepted })}\n`);
}
