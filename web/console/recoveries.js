// The story of each recovery, step by step, also while it runs.

import { clock, duration, h } from "./dom.js";

const COLOURS = { succeeded: "good", already_fixed: "good", undone: "warn", refused: "warn", preempted: "warn", interrupted: "warn" };

export function story(recovery) {
  const running = !recovery.outcome;
  const colour = running ? "warn" : COLOURS[recovery.outcome] ?? "bad";
  const span = Math.max(1, ...recovery.steps.map((step) => step.offset_ms + (step.duration_ms ?? 0)));
  return h("details", { class: "story", "data-name": `recovery-${recovery.id}`, open: running && recovery.reparents },
    h("summary", {},
      h("span", { class: "dim" }, `#${recovery.id}`),
      h("strong", {}, recovery.kind),
      h("span", {}, `${recovery.keyspace}/${recovery.shard}`),
      h("span", { class: `pill ${colour}` }, running ? "running" : recovery.outcome.replaceAll("_", " ")),
      change(recovery),
      h("span", { class: "dim small when" }, `${clock(recovery.started_at)} ${duration(recovery.duration_ms)}`)),
    h("p", { class: "small" }, why(recovery), recovery.outcome_text && [h("br"), recovery.outcome_text],
      recovery.write_outage_ms !== null && [h("br"), `No server took writes for ${duration(recovery.write_outage_ms)}.`]),
    recovery.evidence.length > 0 && h("ul", { class: "small dim" }, recovery.evidence.map((line) => h("li", {}, line))),
    h("div", { class: "steps" }, recovery.steps.map((one) => step(one, span))));
}

function change(recovery) {
  if (!recovery.new_primary) return null;
  const from = recovery.old_primary ? `${recovery.old_primary} → ` : "";
  return h("span", { class: "mono small" }, from, recovery.new_primary);
}

function why(recovery) {
  if (recovery.trigger === "requested") return `Asked for by ${recovery.requested_by}${recovery.reason ? `: ${recovery.reason}` : ""}.`;
  const on = recovery.finding_tablet ? ` on ${recovery.finding_tablet}` : "";
  return `Because of ${recovery.finding}${on}.`;
}

function step(one, span) {
  const bar = h("i", { class: one.outcome ?? "running" });
  bar.style.left = `${(100 * one.offset_ms) / span}%`;
  bar.style.width = `${(100 * (one.duration_ms ?? span - one.offset_ms)) / span}%`;
  return h("div", { class: "step" },
    h("span", {}, one.name),
    h("span", { class: "mono who" }, one.tablet ?? ""),
    h("span", { class: "track" }, bar),
    h("span", { class: "number dim" }, one.outcome ? duration(one.duration_ms) : "…"),
    one.text && h("span", { class: "text" }, one.text));
}
