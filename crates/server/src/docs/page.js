// Shows /openapi.json. Texts are set as text, never as markup.
"use strict";
(async () => {
  const calls = document.getElementById("calls");
  const make = (tag, text, ...children) => {
    const node = document.createElement(tag);
    if (text) node.textContent = text;
    node.append(...children);
    return node;
  };
  const answer = await fetch("/openapi.json").catch(() => null);
  if (!answer || !answer.ok) {
    calls.replaceChildren(make("p", "The document could not be loaded. Is the server still running?"));
    return;
  }
  const doc = await answer.json();
  const resolve = (schema, depth = 0) => {
    if (!schema || depth > 8) return {};
    if (schema.$ref) return resolve(doc.components.schemas[schema.$ref.split("/").pop()], depth + 1);
    return schema;
  };
  const shape = (schema, depth = 0) => {
    const s = resolve(schema);
    const kinds = [].concat(s.type || []).filter((t) => t !== "null");
    if (s.oneOf || s.anyOf) {
      const best = (s.oneOf || s.anyOf).find((one) => one.type !== "null");
      return shape(best, depth + 1);
    }
    if (s.enum) return s.enum.join(" | ");
    if (kinds[0] === "object" && s.properties && depth < 5) {
      return Object.fromEntries(Object.entries(s.properties).map(([k, v]) => [k, shape(v, depth + 1)]));
    }
    if (kinds[0] === "array") return depth < 5 ? [shape(s.items, depth + 1)] : [];
    return s.format || kinds[0] || "any";
  };
  const body = (title, content) => {
    const schema = Object.values(content || {})[0]?.schema;
    return schema ? [make("h4", title), make("pre", JSON.stringify(shape(schema), null, 2))] : [];
  };
  const call = (method, path, op) => {
    const head = make("summary", "", make("b", method.toUpperCase()), make("code", path), make("span", op.summary || ""));
    const node = make("details", "", head, make("p", op.description || ""));
    if (op.parameters?.length) {
      const rows = op.parameters.map((p) =>
        make("tr", "", make("td", "", make("code", p.name)), make("td", p.in), make("td", p.description || "")));
      node.append(make("h4", "Parameters"), make("table", "", ...rows));
    }
    node.append(...body("Body", op.requestBody?.content));
    for (const [status, response] of Object.entries(op.responses || {})) {
      node.append(...body(`${status} ${response.description || ""}`, response.content));
    }
    node.dataset.text = `${method} ${path} ${op.summary || ""}`.toLowerCase();
    return node;
  };
  const groups = new Map();
  for (const [path, methods] of Object.entries(doc.paths)) {
    for (const [method, op] of Object.entries(methods)) {
      const tag = op.tags?.[0] || "other";
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(call(method, path, op));
    }
  }
  calls.replaceChildren(...[...groups].map(([tag, nodes]) => make("section", "", make("h2", tag), ...nodes)));
  document.getElementById("find").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const node of calls.querySelectorAll("details")) node.hidden = !node.dataset.text.includes(wanted);
  });
})();
