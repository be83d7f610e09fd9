// The tree of actors: what each is busy with, and how it fares.

import { h } from "./dom.js";

const COLOURS = { running: "good", restarting: "warn", stopped: "warn", given_up: "bad" };

function depth(actor) {
  if (actor.kind === "registry" || actor.kind === "auditor") return 0;
  if (actor.kind === "shard" || actor.kind === "topo-watcher") return 1;
  return 2;
}

// A shard's own actor first, then those below it.
function order(actor) {
  const rank = { registry: "0", auditor: "1", "topo-watcher": "2" }[actor.kind] ?? "3";
  const under = { shard: 0, recovery: 1, prober: 2 }[actor.kind] ?? 0;
  return [rank, actor.shard ?? "", under, actor.name].join("\u0000");
}

export function table(actors) {
  const sorted = [...actors].sort((one, other) => (order(one) < order(other) ? -1 : 1));
  const restarts = sorted.reduce((sum, actor) => sum + actor.restarts, 0);
  return h("details", { class: "story", "data-name": "actors" },
    h("summary", {}, h("strong", {}, `${sorted.length} actors`),
      h("span", { class: `pill ${restarts ? "warn" : "good"}` }, restarts ? `${restarts} restarts` : "no restarts")),
    h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, h("th", {}, "actor"), h("th", {}, "state"), h("th", {}, "busy with"),
        h("th", { class: "number" }, "mailbox"), h("th", { class: "number" }, "handled"),
        h("th", { class: "number" }, "restarts"), h("th", {}, "last error"))),
      h("tbody", {}, sorted.map(row)))));
}

function row(actor) {
  const name = h("td", {}, `${actor.kind} `, h("span", { class: "mono dim" }, actor.name));
  name.style.paddingLeft = `${depth(actor) * 1.2}rem`;
  return h("tr", {}, name,
    h("td", {}, h("span", { class: `dot ${COLOURS[actor.state] ?? "warn"}` }), actor.state.replaceAll("_", " ")),
    h("td", {}, actor.doing),
    h("td", { class: "number" }, actor.mailbox_depth),
    h("td", { class: "number" }, actor.messages_handled),
    h("td", { class: "number" }, actor.restarts),
    h("td", { class: "small dim" }, actor.last_error ?? ""));
}
