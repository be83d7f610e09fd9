// The status page: keeps what the events tell, and shows it.

import { follow, get, post } from "./api.js";
import * as actorsView from "./actors.js";
import { byId, clock, h, list } from "./dom.js";
import { story } from "./recoveries.js";
import * as shardsView from "./shards.js";

const RECOVERIES_SHOWN = 30;
const ACTORS_EVERY_MS = 2000;

const shards = new Map();
const recoveries = new Map();
let system = null;
let live = false;

function show() {
  showSummary();
  showNotices();
  const wanted = byId("filter").value.trim().toLowerCase();
  const only = byId("troubled").checked;
  const visible = [...shards.values()]
    .filter((shard) => (!only || shard.findings.length > 0) && matches(shard, wanted))
    .sort((one, other) => Number(shardsView.troubled(other)) - Number(shardsView.troubled(one))
      || shardsView.title(one).localeCompare(shardsView.title(other)))
    .map(shardsView.shown);
  list(byId("shards"), visible, shardsView.title, (shard) => shardsView.card(shard, actions));
  const latest = [...recoveries.values()].sort((one, other) => other.id - one.id).slice(0, RECOVERIES_SHOWN);
  list(byId("recoveries"), latest, (one) => String(one.id), story);
}

function matches(shard, wanted) {
  if (!wanted) return true;
  const words = [shardsView.title(shard), ...shard.tablets.map((tablet) => tablet.alias), ...shard.findings.map((finding) => finding.code)];
  return words.some((word) => word.toLowerCase().includes(wanted));
}

function showSummary() {
  const all = [...shards.values()];
  const bad = all.filter(shardsView.troubled).length;
  const running = [...recoveries.values()].filter((one) => !one.outcome).length;
  const tablets = all.reduce((sum, shard) => sum + shard.tablets.length, 0);
  const count = (number, one, many) => `${number} ${number === 1 ? one : many}`;
  const warned = all.filter((shard) => shard.findings.length > 0).length;
  const calm = warned ? `${count(warned, "shard", "shards")} to look at` : all.length ? "All in order" : "No shards are watched yet";
  const head = bad ? `${count(bad, "shard needs", "shards need")} attention` : calm;
  const rest = `${count(all.length, "shard", "shards")}, ${count(tablets, "tablet", "tablets")}`;
  byId("summary").textContent = `${head} · ${rest}${running ? ` · ${count(running, "recovery runs", "recoveries run")}` : ""}`;
  byId("summary").className = bad ? "bad" : "";
  document.title = bad ? `(${bad}) vtorc` : "vtorc";
  const pill = byId("live");
  pill.textContent = live ? "live" : "offline";
  pill.className = `pill ${live ? "good" : "bad"}`;
  const toggle = byId("switch");
  toggle.hidden = !system;
  if (system) toggle.textContent = system.recoveries_enabled ? "Pause recoveries …" : "Resume recoveries …";
}

function showNotices() {
  const notices = [];
  if (!live) notices.push(["bad", "This page has lost vtorc; what it shows is old. Trying again …"]);
  for (const one of system?.controls ?? []) {
    const until = one.until ? `until ${clock(one.until)}` : "until it is lifted";
    notices.push(["", `${one.control} ${until}: ${one.comment} (${one.by})`]);
  }
  if (system && !system.recoveries_enabled) notices.push(["", "Automatic recoveries are paused: nothing is repaired until they are resumed."]);
  if (system?.isolated) notices.push(["bad", `ManagerIsolated: ${system.isolated}. vtorc doubts its own sight and repairs nothing until that is over.`]);
  if (system?.topology_error) notices.push(["bad", `The topology cannot be read; no recovery is possible until it answers: ${system.topology_error}`]);
  for (const [what, why] of Object.entries(system?.topology_warnings ?? {})) notices.push(["", `${what}: ${why}`]);
  list(byId("notices"), notices, ([, text]) => text, ([kind, text]) => h("div", { class: `notice ${kind}` }, text));
}

// Changing something always asks back first.
function ask({ title, text, go, danger, targets, reasonLabel, send }) {
  byId("dialog-title").textContent = title;
  byId("dialog-text").textContent = text;
  byId("dialog-error").textContent = "";
  byId("dialog-reason").value = "";
  byId("dialog-reason-label").textContent = reasonLabel ?? "Reason";
  byId("dialog-target-label").hidden = !targets;
  byId("dialog-target").replaceChildren(h("option", { value: "" }, "whoever is best"),
    ...(targets ?? []).map((alias) => h("option", { value: alias }, alias)));
  const button = byId("dialog-go");
  button.textContent = go;
  button.className = danger ? "danger" : "primary";
  button.disabled = false;
  button.onclick = async () => {
    button.disabled = true;
    try {
      await send({ target: byId("dialog-target").value, reason: byId("dialog-reason").value });
      byId("dialog").close();
    } catch (error) {
      byId("dialog-error").textContent = error.message;
      button.disabled = false;
    }
  };
  byId("dialog").showModal();
}

function reparent(shard, kind, words) {
  const candidates = shard.tablets.filter((tablet) => tablet.type === "REPLICA").map((tablet) => tablet.alias);
  ask({
    ...words,
    targets: candidates,
    send: ({ target, reason }) => {
      const body = { reason };
      if (target) body.new_primary = target;
      else if (kind === "planned-reparent" && shard.primary) body.avoid_primary = shard.primary;
      return post(`/api/v1/shards/${shard.keyspace}/${shard.shard}/${kind}?wait=${kind === "planned-reparent"}`, body);
    },
  });
}

const actions = {
  check: (shard) => get(`/api/v1/shards/${shard.keyspace}/${shard.shard}/check`),
  planned: (shard) => reparent(shard, "planned-reparent", {
    title: `Planned failover of ${shardsView.title(shard)}?`,
    text: `${shard.primary ?? "The primary"} stops taking writes, the new primary catches up and takes over. If that does not work in time, everything is as before.`,
    go: "Fail over",
  }),
  emergency: (shard) => reparent(shard, "emergency-reparent", {
    title: `Emergency failover of ${shardsView.title(shard)}?`,
    text: "The old primary is not asked. Only for a primary that is gone or of no use: clients lose their connections, and with durability policy none writes may be lost.",
    go: "Replace the primary now",
    danger: true,
  }),
  acknowledge: (shard) => ask({
    title: `Lift the block of ${shardsView.title(shard)}?`,
    text: "The next failure of its primary is then recovered at once.",
    go: "Acknowledge",
    reasonLabel: "Comment",
    send: ({ reason }) => post(`/api/v1/shards/${shard.keyspace}/${shard.shard}/acknowledge`, { comment: reason }),
  }),
};

function toggleRecoveries() {
  const enabled = system.recoveries_enabled;
  ask({
    title: enabled ? "Pause all automatic recoveries?" : "Resume automatic recoveries?",
    text: enabled ? "Nothing is repaired any more, on any shard, until they are resumed. Requested failovers still work." : "What is wrong now is repaired at once.",
    go: enabled ? "Pause" : "Resume",
    danger: enabled,
    reasonLabel: "Comment",
    send: async ({ reason }) => {
      await post(`/api/v1/recoveries/${enabled ? "disable" : "enable"}`, { comment: reason });
      system = await get("/api/v1/system");
      show();
    },
  });
}

async function readAll() {
  const [allShards, latest, now] = await Promise.all([get("/api/v1/shards"), get(`/api/v1/recoveries?limit=${RECOVERIES_SHOWN}`), get("/api/v1/system")]);
  shards.clear();
  allShards.forEach((shard) => shards.set(shardsView.title(shard), shard));
  latest.forEach((one) => recoveries.set(one.id, one));
  system = now;
  show();
}

let due = false;
function showSoon() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => { due = false; show(); });
}

function onEvent(kind, data) {
  if (kind === "shard") shards.set(shardsView.title(data), data);
  else if (kind === "shard-gone") shards.delete(shardsView.title(data));
  else if (kind === "recovery") recoveries.set(data.id, data);
  else if (kind === "system") system = data;
  else if (kind === "resync") readAll().catch(console.warn);
  showSoon();
}

async function onState(connected) {
  live = connected;
  if (connected) await readAll().catch(console.warn);
  showSoon();
}

async function showActors() {
  try {
    const fresh = actorsView.table(await get("/api/v1/actors"));
    const before = byId("actors").firstElementChild;
    fresh.open = before ? before.open : false;
    byId("actors").replaceChildren(fresh);
  } catch (error) {
    console.warn(error);
  }
  setTimeout(showActors, ACTORS_EVERY_MS);
}

byId("filter").addEventListener("input", show);
byId("troubled").addEventListener("change", show);
byId("switch").addEventListener("click", toggleRecoveries);
byId("dialog-cancel").addEventListener("click", () => byId("dialog").close());
if (new URLSearchParams(location.search).has("actors")) {
  setTimeout(() => { const box = byId("actors").firstElementChild; if (box) box.open = true; }, 500);
}
follow(onEvent, onState);
showActors();
