// Every example payload that GitHub publishes for github.com, signed by GitHub's own library, for
// crates/doorbell/tests/it/senders.rs.
//
// stdin: {"secret": "…"}
// stdout: one JSON line for each example: {name, signature, body_base64}; the name is the event's type.

import { text } from "node:stream/consumers";

import examples from "@octokit/webhooks-examples/api.github.com/index.json" with { type: "json" };
import { sign } from "@octokit/webhooks-methods";

const { secret } = JSON.parse(await text(process.stdin));
for (const { name, examples: payloads } of examples) {
  for (const payload of payloads) {
    const body = JSON.stringify(payload);
    const line = { name, signature: await sign(secret, body), body_base64: Buffer.from(body).toString("base64") };
    process.stdout.write(`${JSON.stringify(line)}\n`);
  }
}
