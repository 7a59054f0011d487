// Requests as the senders' own SDKs sign them, for crates/doorbell/tests/it/senders.rs. Doorbell's code has no part in
// them: if our engine and the SDKs ever read a signature differently, that test fails.
//
// stdin: a list of rounds, [{"round": "true", "at": <seconds since 1970>, "secrets": {"github": "…", …}}, …]
// stdout: one JSON line for each round and request; `event` is what an agent should see of it. `data` is absent where
// the body is JSON: it is the body then, and JavaScript would lose large numbers.

import { createHmac } from "node:crypto";
import { text } from "node:stream/consumers";

import { sign as octokitSign } from "@octokit/webhooks-methods";
import { verifySlackRequest } from "@slack/bolt";
import { Webhook as StandardWebhook } from "standardwebhooks";
import Stripe from "stripe";
import { Webhook as SvixWebhook } from "svix";

import { requests } from "./requests.mjs";

const stripe = new Stripe("sk_test_unused");

/** The headers that each SDK makes for a body. */
const signers = {
  github: async (secret, at, { body }) => ({
    "x-hub-signature-256": await octokitSign(secret, body),
  }),
  stripe: (secret, at, { body }) => ({
    "stripe-signature": stripe.webhooks.generateTestHeaderString({ payload: body, secret, timestamp: at }),
  }),
  svix: (secret, at, { id, body }) => ({
    "svix-id": id,
    "svix-timestamp": String(at),
    "svix-signature": new SvixWebhook(secret).sign(id, new Date(at * 1000), body),
  }),
  "standard-webhooks": (secret, at, { id, body }) => ({
    "webhook-id": id,
    "webhook-timestamp": String(at),
    "webhook-signature": new StandardWebhook(secret).sign(id, new Date(at * 1000), body),
  }),
  // Slack publishes a check and no signer: what is made here counts only once Slack's own check has passed it.
  slack: (secret, at, { body }) => {
    const headers = {
      "x-slack-request-timestamp": String(at),
      "x-slack-signature": `v0=${createHmac("sha256", secret).update(`v0:${at}:${body}`).digest("hex")}`,
    };
    verifySlackRequest({ signingSecret: secret, body, headers, nowMilliseconds: at * 1000 });
    return headers;
  },
};

for (const { round, at, secrets } of JSON.parse(await text(process.stdin))) {
  for (const [provider, sign] of Object.entries(signers)) {
    for (const request of requests[provider]) {
      const signed = await sign(secrets[provider], at, request);
      const line = {
        round,
        provider,
        name: request.name,
        path: `/hooks/${provider}`,
        headers: { ...request.headers, ...signed },
        body_base64: Buffer.from(request.body).toString("base64"),
        event: request.event,
        challenge: request.challenge,
      };
      process.stdout.write(`${JSON.stringify(line)}\n`);
    }
  }
}
