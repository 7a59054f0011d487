// What the senders say, before it is signed: the shapes of their documentation, with everything in them that a reader of
// bodies could get wrong (accents, emoji, escapes, 64-bit numbers, blanks, forms). Used by sign.mjs.

import { createHash } from "node:crypto";

const JSON_TYPE = "application/json";
const FORM_TYPE = "application/x-www-form-urlencoded";

/** A form as Slack and GitHub write it: percent-encoded, blanks as %20, so that encoding it again changes it. */
const form = (fields) =>
  Object.entries(fields)
    .map(([key, value]) => `${encodeURIComponent(key)}=${encodeURIComponent(value)}`)
    .join("&");

const github = (name, id, [type, content], body, data) => ({
  name,
  headers: {
    "content-type": content,
    "user-agent": "GitHub-Hookshot/044aadd",
    "x-github-event": type,
    "x-github-delivery": `72d3162e-cc78-11e3-81ab-4c9367dc${id}`,
    "x-github-hook-id": "292430182",
  },
  body,
  event: { type, data },
});

const issue = {
  action: "opened",
  issue: { number: 7, title: "Le café est fermé", labels: ["á l’ancienne", "日本語"] },
  repository: { full_name: "octo/hello world" },
  sender: { login: "mona" },
};

const withId = (name, type, body) => ({
  name,
  id: `msg_${name}`,
  headers: { "content-type": JSON_TYPE, "user-agent": "Svix-Webhooks/1.62" },
  body,
  event: { type },
});

const standard = [
  withId("plain", "user.created", '{"type":"user.created","timestamp":"2025-10-09T08:53:20Z","data":{"id":"u_1"}}'),
  withId("unicode", "user.renamed", '{"type":"user.renamed","data":{"name":"Zoé ☃ 🦀","was":"Zo\\u00e9 \\ud83e\\udd80"}}'),
  withId("numbers", "ledger.posted", '{ "type": "ledger.posted", "data": { "cents": 9007199254740993, "rate": 1.50 } }\n'),
];

const slackHeaders = (content) => ({ "content-type": content, "user-agent": "Slackbot 1.0 (+https://api.slack.com/robots)" });

const command = {
  token: "gIkuvaNzQIHg97ATvDxqgjtO",
  api_app_id: "A123ABC456",
  team_id: "T0001",
  channel_id: "C2147483705",
  user_id: "U2147483697",
  command: "/météo",
  text: "café & thé = 94070 🌧",
  response_url: "https://hooks.slack.com/commands/1234/5678",
  trigger_id: "13345224609.738474920.8088930838d88f008e0",
};

const interaction = {
  type: "block_actions",
  api_app_id: "A123ABC456",
  token: "gIkuvaNzQIHg97ATvDxqgjtO",
  trigger_id: "12466734323.1395872398",
  user: { id: "U1", name: "josé" },
  channel: { id: "C1" },
  actions: [{ action_id: "approve", value: "oui, s’il vous plaît" }],
};

const mention = {
  token: "gIkuvaNzQIHg97ATvDxqgjtO",
  team_id: "T0001",
  type: "event_callback",
  api_app_id: "A123ABC456",
  event_id: "Ev0PV52K25",
  event_time: 1355517523,
  event: { type: "app_mention", user: "U061F7AUR", channel: "C0LAN2Q65", text: "<@U0LAN0Z89> déjà vu? 🔔", ts: "1515449522.000016" },
};

const challenge = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P";

const json = (name, body, event, headers = {}) => ({
  name,
  headers: { "content-type": JSON_TYPE, ...headers },
  body,
  event,
});

/** An event with an id and a type in the body, as most senders write it. */
const plain = (name, id, type, rest) => json(name, JSON.stringify({ ...id, ...type, ...rest }), { type: Object.values(type)[0] });

const sms = { MessageSid: "SM1", From: "+15550100", To: "+15550101", Body: "café & thé = 5 ☕" };

const shopify = (name, id, topic, body) =>
  json(name, body, { type: topic }, {
    "x-shopify-topic": topic,
    "x-shopify-webhook-id": id,
    "x-shopify-shop-domain": "cafe.myshopify.com",
    "x-shopify-api-version": "2025-07",
  });

const contentful = (name, body) =>
  json(name, body, { type: "" }, {
    "content-type": "application/vnd.contentful.management.v1+json",
    "x-contentful-topic": "ContentManagement.Entry.publish",
  });

/** Senders that put several events into one request; here there is one in each. */
const batch = (name, type, element, wrap, headers, beside) => json(name, wrap(element), { type, data: { ...element, ...beside } }, headers);

export const requests = {
  github: [
    github("unicode", "0001", ["issues", JSON_TYPE], JSON.stringify(issue)),
    github("escapes", "0002", ["push", JSON_TYPE], '{\n  "ref": "refs/heads/caf\\u00e9",\n  "size": 18446744073709551615,\n  "commits": [ ]\n}\n'),
    github("form", "0003", ["issues", FORM_TYPE], form({ payload: JSON.stringify({ ...issue, action: "edited" }) }), {
      ...issue,
      action: "edited",
    }),
    github("ping", "0004", ["ping", JSON_TYPE], '{"zen":"Non-blocking is better than blocking.","hook_id":1}'),
  ],
  stripe: [
    ["evt_1NG8Du2eZvKYlo2CUI79vXWy", "charge.succeeded", { id: "ch_3", amount: 2000, billing_details: { name: "Renée Müller" } }],
    ["evt_1NG8Du2eZvKYlo2CUI79vXWz", "invoice.payment_failed", { id: "in_1", description: "Abonnement – été 🌞", tax: 0.19 }],
    ["evt_1NG8Du2eZvKYlo2CUI79vXW0", "customer.deleted", { id: "cus_9" }],
  ].map(([id, type, object]) => ({
    name: type,
    headers: { "content-type": "application/json; charset=utf-8", "user-agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)" },
    // Stripe sends its JSON indented.
    body: JSON.stringify({ id, object: "event", api_version: "2025-06-30", created: 1686089970, data: { object }, type }, null, 2),
    event: { type },
  })),
  svix: standard,
  "standard-webhooks": standard,
  slack: [
    { name: "event", headers: slackHeaders(JSON_TYPE), body: JSON.stringify(mention), event: { type: "app_mention" } },
    { name: "command", headers: slackHeaders(FORM_TYPE), body: form(command), event: { type: "/météo", data: command } },
    {
      name: "interaction",
      headers: slackHeaders(FORM_TYPE),
      body: form({ payload: JSON.stringify(interaction) }),
      event: { type: "block_actions", data: interaction },
    },
    {
      name: "handshake",
      headers: slackHeaders(JSON_TYPE),
      body: JSON.stringify({ token: "Jhj5dZrVaK7ZwHHjRyZWjbDl", challenge, type: "url_verification" }),
      challenge,
    },
  ],
  twilio: [
    { name: "sms", headers: { "content-type": FORM_TYPE }, body: form(sms), event: { type: "", data: sms } },
    {
      ...json("json", JSON.stringify({ EventType: "delivered", Text: "déjà vu 🔔" }), { type: "" }),
      query: (text) => `?bodySHA256=${createHash("sha256").update(text).digest("hex")}`,
    },
  ],
  workos: [
    plain("unicode", { id: "event_01A" }, { event: "user.created" }, { data: { name: "Zoé ☃" }, created_at: "2025-10-09" }),
    plain("list", { id: "event_01B" }, { event: "dsync.group.updated" }, { data: { groups: ["é", "2"] } }),
  ],
  contentful: [
    contentful("unicode", '{"sys":{"id":"5q"},"fields":{"title":{"fr":"L’été ☀"}}}'),
    contentful("numbers", '{ "sys": { "version": 9007199254740993 },\n "note": "\\u00e9 é" }\n'),
  ],
  sendgrid: [
    // SendGrid's body may end in CR LF, which is signed.
    batch("delivered", "delivered", { event: "delivered", sg_event_id: "ZGVs", email: "zoé@example.com" }, (e) => `[${JSON.stringify(e)}]\r\n`),
    batch("bounce", "bounce", { event: "bounce", sg_event_id: "Ym91", reason: "550 boîte pleine" }, (e) => `[\n${JSON.stringify(e)}\n]`),
  ],
  "discord-interactions": [
    json("command", '{"id":"846462639134605312","type":2,"data":{"name":"météo"},"member":{"user":{"id":"53908232506183680"}}}', { type: "météo" }),
    json("button", '{"id":"846462639134605313","type":3,"data":{"name":"oui"},"big":18446744073709551615}', { type: "oui" }),
    { ...json("ping", '{"type":1,"id":"846462639134605314"}'), challenge: '{"type":1}' },
  ],
  razorpay: [
    json("payment", '{"event":"payment.captured","payload":{"payment":{"entity":{"notes":"thé glacé"}}}}', { type: "payment.captured" }, { "x-razorpay-event-id": "K1" }),
    json("order", '{ "event": "order.paid", "created_at": 1567674606 }', { type: "order.paid" }, { "x-razorpay-event-id": "K2" }),
  ],
  shopify: [
    shopify("order", "b54557e4-1", "orders/create", '{"id":820982911946154508,"note":"café","total_price":"1.50"}'),
    shopify("product", "b54557e4-2", "products/update", '{ "id": 788032119674292922, "title": "Thé \\u2615" }'),
  ],
  line: [
    batch("message", "message", { type: "message", webhookEventId: "01H1", message: { type: "text", text: "bonjour é 🎉" } }, (e) => JSON.stringify({ destination: "U1", events: [e] }), undefined, { destination: "U1" }),
    batch("follow", "follow", { type: "follow", webhookEventId: "01H2", name: "josé" }, (e) => JSON.stringify({ events: [e], destination: "U1" }, null, 1), undefined, { destination: "U1" }),
  ],
  linear: ["create", "update"].map((action) => ({
    ...json(action, null, { type: `Issue.${action}` }, { "linear-delivery": `234d1a4e-${action}` }),
    // The time of signing stands in the body.
    body: (at) => JSON.stringify({ action, type: "Issue", data: { title: "Ça marche 🚲, café" }, webhookTimestamp: at * 1000 }),
  })),
  mux: [
    plain("ready", { id: "3a56" }, { type: "video.asset.ready" }, { data: { title: "été" } }),
    plain("error", { id: "3a57" }, { type: "video.asset.errored" }, { data: { messages: ["é", "☂"] } }),
  ],
  paddle: [
    plain("paid", { event_id: "evt_01" }, { event_type: "transaction.paid" }, { data: { name: "Renée" } }),
    plain("due", { event_id: "evt_02" }, { event_type: "subscription.past_due" }, { data: { note: "à suivre" } }),
  ],
  pusher: [
    batch("occupied", "channel_occupied", { name: "channel_occupied", channel: "été" }, (e) => JSON.stringify({ time_ms: 1, events: [e] }), { "x-pusher-key": "3f5d" }, { time_ms: 1 }),
    batch("vacated", "channel_vacated", { name: "channel_vacated", channel: "hiver é" }, (e) => JSON.stringify({ time_ms: 2, events: [e] }), { "x-pusher-key": "3f5d" }, { time_ms: 2 }),
  ],
};
