// The senders' own SDKs, each under the name of its preset: how it signs, and whether it accepts. Used by sign.mjs and
// check.mjs; Doorbell's code has no part in it.
//
// `sign` gives the headers of the signature. Some SDKs sign themselves (`by: "sdk"`). The others only check: there node's
// crypto signs, by the sender's documentation, and a signature counts only once the SDK has accepted it (sign.mjs).
//
// `accepts` is the SDK's own verdict on a request: {headers, body, text, url}. A false and an exception are both a no.

import { createHmac, createPrivateKey, sign as signWith } from "node:crypto";

import { signRequest, verifyRequest } from "@contentful/node-apps-toolkit/requests";
import { validateSignature as lineAccepts } from "@line/bot-sdk";
import { LinearWebhookClient } from "@linear/sdk/webhooks";
import { Mux } from "@mux/mux-node";
import { sign as octokitSign, verify as octokitVerify } from "@octokit/webhooks-methods";
import { Paddle } from "@paddle/paddle-node-sdk";
import sendgrid from "@sendgrid/eventwebhook";
import "@shopify/shopify-api/adapters/web-api";
import { ApiVersion, shopifyApi } from "@shopify/shopify-api";
import { verifySlackRequest } from "@slack/bolt";
import { WorkOS } from "@workos-inc/node";
import { verifyKey as discordAccepts } from "discord-interactions";
import Pusher from "pusher";
import Razorpay from "razorpay";
import { Webhook as StandardWebhook } from "standardwebhooks";
import Stripe from "stripe";
import { Webhook as SvixWebhook } from "svix";
import twilio from "twilio/lib/webhooks/webhooks.js";

const stripe = new Stripe("sk_test_unused");
const workos = new WorkOS("sk_test_unused");
const paddle = new Paddle("unused");
const mux = new Mux({ tokenId: "unused", tokenSecret: "unused" });

const hmac = (secret, text, encoding) => createHmac("sha256", secret).update(text).digest(encoding);

/** The private keys to the public ones that a source is given. They sign nothing but these tests. */
const privateKeys = {
  f2a9d9e89d709853d9f6aea0f83a24421837da7955d1fa0aa3ec39f237d18afd:
    "MC4CAQAwBQYDK2VwBCIEIEvNey0N7RCiWnDB3zVX1OSYjCvWspY0WSz8xgEW42DO",
  "71333d4e3fed9fc8aae80a8a5e16450f595706dbfc241a27ab88373228228f79":
    "MC4CAQAwBQYDK2VwBCIEIFw9aS6V6SWTKyp+rmHlpowhWxmrVIL+HK/3kdOxGQS+",
  "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEmUyZGPxt6NcVxWuv/WTdko5YPOi138GdsIBadsLzT3Lo/8A8G8ZLuQfJE07IVJEZhQMkzpvSCqLskQn2U7uBAA==":
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgznYirTkzCoyXPIw42nllWu5EfKl0kNWmoLA4YbMaTNChRANCAASZTJkY/G3o1xXFa6/9ZN2Sjlg86LXfwZ2wgFp2wvNPcuj/wDwbxku5B8kTTshUkRmFAyTOm9IKouyRCfZTu4EA",
  "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAETgNS0xUHIn6/jURC8o5r2oJNDtCvqsiykmLNt2racIiLmnEglHBeJhFujN5no8UrGvgyLf1AZBs4bS3Ip2vZuA==":
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgeNHDiVsp+G8wozwcS7yHvW3jdV98TFWpglCqSqHhjiyhRANCAAROA1LTFQcifr+NRELyjmvagk0O0K+qyLKSYs23atpwiIuacSCUcF4mEW6M3mejxSsa+DIt/UBkGzhtLcina9m4",
};

const signWithKey = (publicKey, hash, text) => {
  const key = createPrivateKey({ key: Buffer.from(privateKeys[publicKey], "base64"), format: "der", type: "pkcs8" });
  return signWith(hash, Buffer.from(text), key);
};

/** One whose base64 ends in padding. ECDSA signs differently each time, and what base64 has behind its end is a case. */
const padded = (sign) => {
  const signature = sign();
  return signature.length % 3 === 0 ? padded(sign) : signature;
};

/** The fields of a form as Twilio's SDK wants them: a list where a name stands several times. */
const fields = (text) => {
  const all = {};
  for (const [name, value] of new URLSearchParams(text)) {
    all[name] = name in all ? [all[name], value].flat() : value;
  }
  return all;
};

const standard = (Webhook, prefix) => ({
  by: "sdk",
  sign: (secret, at, { id, text }) => ({
    [`${prefix}-id`]: id,
    [`${prefix}-timestamp`]: String(at),
    [`${prefix}-signature`]: new Webhook(secret).sign(id, new Date(at * 1000), text),
  }),
  accepts: (secret, { headers, text }) => Boolean(new Webhook(secret).verify(text, headers)),
});

export const vendors = {
  github: {
    by: "sdk",
    sign: async (secret, at, { text }) => ({ "x-hub-signature-256": await octokitSign(secret, text) }),
    accepts: (secret, { headers, text }) => octokitVerify(secret, text, headers["x-hub-signature-256"]),
  },
  stripe: {
    by: "sdk",
    sign: (secret, at, { text }) => ({
      "stripe-signature": stripe.webhooks.generateTestHeaderString({ payload: text, secret, timestamp: at }),
    }),
    accepts: (secret, { headers, body }) => Boolean(stripe.webhooks.constructEvent(body, headers["stripe-signature"], secret)),
  },
  svix: standard(SvixWebhook, "svix"),
  "standard-webhooks": standard(StandardWebhook, "webhook"),
  twilio: {
    by: "sdk",
    sign: (secret, at, { headers, text, url }) => ({
      "x-twilio-signature": twilio.getExpectedTwilioSignature(
        secret,
        url,
        headers["content-type"].startsWith("application/json") ? {} : fields(text),
      ),
    }),
    accepts: (secret, { headers, text, url }) =>
      twilio.validateIncomingRequest(
        { header: (name) => headers[name.toLowerCase()], headers, rawBody: text, body: fields(text) },
        secret,
        { url },
      ),
  },
  workos: {
    by: "sdk",
    sign: async (secret, at, { text }) => ({
      "workos-signature": `t=${at * 1000}, v1=${await workos.webhooks.computeSignature(at * 1000, JSON.parse(text), secret)}`,
    }),
    accepts: async (secret, { headers, text }) =>
      Boolean(
        await workos.webhooks.constructEvent({ payload: JSON.parse(text), sigHeader: headers["workos-signature"], secret }),
      ),
  },
  contentful: {
    by: "sdk",
    sign: (secret, at, { headers, text, url }) => {
      const { pathname, search } = new URL(url);
      const signed = { "x-contentful-topic": headers["x-contentful-topic"] };
      return signRequest(secret, { method: "POST", path: pathname + search, headers: signed, body: text }, at * 1000);
    },
    accepts: (secret, { headers, text, url }) => {
      const { pathname, search } = new URL(url);
      return verifyRequest(secret, { method: "POST", path: pathname + search, headers, body: text });
    },
  },
  slack: {
    by: "node",
    sign: (secret, at, { text }) => ({
      "x-slack-request-timestamp": String(at),
      "x-slack-signature": `v0=${hmac(secret, `v0:${at}:${text}`, "hex")}`,
    }),
    accepts: (secret, { headers, text }) => {
      verifySlackRequest({ signingSecret: secret, body: text, headers });
      return true;
    },
  },
  sendgrid: {
    by: "node",
    sign: (secret, at, { text }) => ({
      "x-twilio-email-event-webhook-timestamp": String(at),
      "x-twilio-email-event-webhook-signature": padded(() => signWithKey(secret, "sha256", `${at}${text}`)).toString("base64"),
    }),
    accepts: (secret, { headers, body }) => {
      const check = new sendgrid.EventWebhook();
      const [signature, timestamp] = ["signature", "timestamp"].map((of) => headers[`x-twilio-email-event-webhook-${of}`]);
      return check.verifySignature(check.convertPublicKeyToECDSA(secret), body, signature, timestamp);
    },
  },
  "discord-interactions": {
    by: "node",
    sign: (secret, at, { text }) => ({
      "x-signature-timestamp": String(at),
      "x-signature-ed25519": signWithKey(secret, null, `${at}${text}`).toString("hex"),
    }),
    accepts: (secret, { headers, body }) =>
      discordAccepts(body, headers["x-signature-ed25519"], headers["x-signature-timestamp"], secret),
  },
  razorpay: {
    by: "node",
    sign: (secret, at, { text }) => ({ "x-razorpay-signature": hmac(secret, text, "hex") }),
    accepts: (secret, { headers, text }) => Razorpay.validateWebhookSignature(text, headers["x-razorpay-signature"], secret),
  },
  shopify: {
    by: "node",
    sign: (secret, at, { text }) => ({ "x-shopify-hmac-sha256": hmac(secret, text, "base64") }),
    accepts: async (secret, { headers, text, url }) => {
      const options = { apiKey: "unused", apiSecretKey: secret, hostName: "door.example.com", apiVersion: ApiVersion.July25 };
      const shopify = shopifyApi({ ...options, isEmbeddedApp: false, logger: { log: () => {} } });
      const rawRequest = new Request(url, { method: "POST", headers, body: text });
      return (await shopify.webhooks.validate({ rawBody: text, rawRequest })).valid;
    },
  },
  line: {
    by: "node",
    sign: (secret, at, { text }) => ({ "x-line-signature": hmac(secret, text, "base64") }),
    accepts: (secret, { headers, body }) => lineAccepts(body, secret, headers["x-line-signature"]),
  },
  linear: {
    by: "node",
    sign: (secret, at, { text }) => ({ "linear-signature": hmac(secret, text, "hex") }),
    accepts: (secret, { headers, body }) => new LinearWebhookClient(secret).verify(body, headers["linear-signature"]),
  },
  mux: {
    by: "node",
    sign: (secret, at, { text }) => ({ "mux-signature": `t=${at},v1=${hmac(secret, `${at}.${text}`, "hex")}` }),
    accepts: async (secret, { headers, text }) => {
      await mux.webhooks.verifySignature(text, headers, secret);
      return true;
    },
  },
  paddle: {
    by: "node",
    sign: (secret, at, { text }) => ({ "paddle-signature": `ts=${at};h1=${hmac(secret, `${at}:${text}`, "hex")}` }),
    accepts: (secret, { headers, text }) => paddle.webhooks.isSignatureValid(text, secret, headers["paddle-signature"]),
  },
  pusher: {
    by: "node",
    sign: (secret, at, { text }) => ({ "x-pusher-signature": hmac(secret, text, "hex") }),
    accepts: (secret, { headers, text }) =>
      new Pusher({ appId: "1", key: "3f5d", secret, cluster: "eu" }).webhook({ headers, rawBody: text }).isValid(),
  },
};
