// Requests as the senders sign them, for crates/doorbell/tests/it/senders.rs: by their own SDKs, or by node's crypto and
// then accepted by their SDKs. Doorbell's code has no part in them: if our engine and an SDK ever read a signature
// differently, that test fails.
//
// stdin: {"base": <our public URL>, "rounds": [{"round": "true", "at": <seconds since 1970>, "secrets": {"github": "…", …}}]}
// stdout: one JSON line for each round and request; `event` is what an agent should see of it. `data` is absent where
// the body is JSON: it is the body then, and JavaScript would lose large numbers.

import { text } from "node:stream/consumers";

import { setClock } from "./clock.mjs";
import { requests } from "./requests.mjs";
import { vendors } from "./vendors.mjs";

const { base, rounds } = JSON.parse(await text(process.stdin));
for (const { round, at, secrets } of rounds) {
  setClock(at);
  for (const [provider, vendor] of Object.entries(vendors)) {
    const secret = secrets[provider];
    for (const made of requests[provider]) {
      const { name, id, headers, event, challenge, body: bodyAt, query = () => "" } = made;
      const text = typeof bodyAt === "function" ? bodyAt(at) : bodyAt;
      const body = Buffer.from(text);
      const path = `/hooks/${provider}${query(text)}`;
      const request = { id, headers, text, body, url: base + path };
      const signed = { ...headers, ...(await vendor.sign(secret, at, request)) };
      if (!(await vendor.accepts(secret, { ...request, headers: signed }))) {
        throw new Error(`the SDK of ${provider} does not accept ${name}, signed by ${vendor.by}`);
      }
      const line = { round, provider, name, path, headers: signed, body_base64: body.toString("base64"), event, challenge };
      process.stdout.write(`${JSON.stringify(line)}\n`);
    }
  }
}
