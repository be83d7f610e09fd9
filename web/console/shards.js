// A card for each shard: who is primary, what each tablet does, what is wrong and what is done about it.

import { clock, h } from "./dom.js";

const WATCHED_ONLY = "WatchOnly";

export function title(shard) {
  return `${shard.keyspace}/${shard.shard}`;
}

export function troubled(shard) {
  return shard.findings.some((finding) => finding.recovery !== WATCHED_ONLY) || !shard.primary;
}

function state(shard) {
  if (shard.recovering) return ["recovering", "warn"];
  if (troubled(shard)) return [shard.findings[0]?.code ?? "no primary", "bad"];
  if (shard.findings.length) return [`${shard.findings.length} to look at`, "warn"];
  return ["in order", "good"];
}

// What the card shows: ages and counters that change all the time are left out.
export function shown(shard) {
  const { as_of, ...rest } = shard;
  const tablets = shard.tablets.map((tablet) => ({ ...tablet, last_seen: tablet.reachable ? null : tablet.last_seen }));
  const findings = shard.findings.map((finding) => ({ ...finding, evidence: finding.evidence.map((one) => one.sight) }));
  const why_not = shard.why_not.map(({ last, count, ...one }) => (one.until ? { ...one, count } : one));
  return { ...rest, tablets, findings, why_not };
}

export function card(shard, actions) {
  const [text, colour] = state(shard);
  const kind = colour === "bad" ? "card troubled" : colour === "warn" ? "card warned" : "card";
  return h("article", { class: kind, "aria-label": title(shard) },
    h("div", { class: "head" },
      h("h3", {}, title(shard)),
      h("span", { class: `pill ${colour}` }, text),
      h("span", { class: "dim small" }, `durability ${shard.durability_policy}`),
      h("div", { class: "actions" },
        h("button", { type: "button", "data-focus": "check", onclick: () => check(shard, actions) }, "Check"),
        h("button", { type: "button", "data-focus": "planned", onclick: () => actions.planned(shard) }, "Failover …"),
        h("button", { type: "button", "data-focus": "emergency", onclick: () => actions.emergency(shard) }, "Emergency …"))),
    h("div", { class: "preflight", "aria-live": "polite" }, checked.get(title(shard))),
    shard.held_back && h("div", { class: "notice bad" }, h("strong", {}, "Not recovering:"), shard.held_back),
    shard.recovery_block && block(shard, actions),
    h("div", { class: "scroll" }, tablets(shard)),
    prognosis(shard.if_primary_died),
    inaction(shard.why_not),
    shard.findings.map((finding) => found(finding)));
}

// What the last check of each shard said; it stays when the card is drawn anew, until it is closed.
const checked = new Map();

// Asks every server now what would go wrong on the bad day, and says so in the card.
async function check(shard, actions) {
  const tell = (element) => {
    if (element) checked.set(title(shard), element);
    else checked.delete(title(shard));
    const card = [...document.querySelectorAll("article")].find((one) => one.ariaLabel === title(shard));
    card?.querySelector(".preflight").replaceChildren(...(element ? [element] : []));
  };
  tell(h("div", { class: "notice" }, "Asking every server …"));
  try {
    const concerns = await actions.check(shard);
    const close = h("button", { type: "button", onclick: () => tell(null) }, "Close");
    tell(h("div", { class: "finding small" },
      h("p", {}, concerns.length ? `${concerns.length} to put in order before the bad day. ` : "Everything is in order. ", close),
      h("ul", {}, concerns.map((one) => h("li", {},
        h("span", { class: `pill ${one.severity === "error" ? "bad" : "warn"}` }, one.code), " ",
        one.tablet && h("span", { class: "mono" }, one.tablet, ": "), one.what,
        h("div", { class: "dim" }, one.cure))))));
  } catch (error) {
    tell(h("div", { class: "notice bad" }, error.message));
  }
}

// What would happen if the primary died this second: said before it happens.
function prognosis(would) {
  const others = Object.entries(would.not);
  if (would.outcome === "no_primary") return null;
  const promotes = would.outcome === "promotes";
  const colour = promotes ? would.may_lose ? "warn" : "good" : "bad";
  const short = promotes ? ["would promote ", h("span", { class: "mono" }, would.new_primary)] : "no failover possible";
  return h("details", { class: "finding small prognosis", "data-name": "prognosis" },
    h("summary", {}, h("span", { class: "dim" }, "If the primary died now: "), h("span", { class: `pill ${colour}` }, short)),
    promotes
      ? h("p", { class: "dim" }, would.may_lose ? `Could be lost: ${would.may_lose}.` : "Nothing that was acknowledged would be lost.",
        would.catches_up_from && ` It would first catch up from ${would.catches_up_from}.`)
      : h("p", { class: "dim" }, would.why),
    h("ul", {}, others.map(([alias, why]) => h("li", {}, "not ", h("span", { class: "mono" }, alias), `: ${why}`))));
}

// Every decision not to act: those that stand, and the last ones that are over.
function inaction(decisions) {
  const told = decisions.filter((one) => one.why !== "watch_only");
  if (!told.length) return null;
  const standing = told.filter((one) => !one.until).length;
  return h("details", { class: "finding small", "data-name": "why-not" },
    h("summary", {}, h("span", { class: "dim" }, "Why nothing was done: "),
      standing ? h("span", { class: "pill bad" }, `${standing} now`) : `${told.length} times before`),
    h("ul", {}, told.map((one) => h("li", {},
      h("span", { class: one.until ? "pill" : "pill bad" }, one.why.replaceAll("_", " ")), " ", one.finding, " ",
      one.tablet && h("span", { class: "mono" }, one.tablet), `: ${one.reason} `,
      h("span", { class: "dim" }, one.until ? `(${clock(one.since)} to ${clock(one.until)}, ${one.count} times)` : `(since ${clock(one.since)})`)))));
}

function block(shard, actions) {
  const { recovery, until } = shard.recovery_block;
  return h("div", { class: "notice" },
    h("span", {}, `Blocked by recovery ${recovery} until ${clock(until)}: no second automatic failover before that.`),
    h("button", { type: "button", "data-focus": "acknowledge", onclick: () => actions.acknowledge(shard) }, "Acknowledge …"));
}

function tablets(shard) {
  const rows = shard.tablets.map((tablet) => row(tablet, shard));
  return h("table", {},
    h("thead", {}, h("tr", {},
      h("th", {}, "tablet"), h("th", {}, "state"), h("th", {}, "replication"), h("th", { class: "wide" }, "semi-sync"))),
    h("tbody", {}, rows));
}

function row(tablet, shard) {
  const isPrimary = tablet.alias === shard.primary;
  const address = tablet.mysql_host ? `${tablet.mysql_host}:${tablet.mysql_port}` : "no address";
  const colour = tablet.reachable ? "good" : tablet.state === "suspect" ? "warn" : "bad";
  return h("tr", { class: isPrimary ? "is-primary" : "" },
    h("td", { class: "fixed" }, h("div", { class: "mono alias" }, tablet.alias),
      h("div", { class: "small dim", title: tablet.version ?? "" }, `${tablet.type} `, h("span", { class: "mono" }, address)),
      vttablet(tablet),
      tablet.errant_gtids && h("div", { class: "small", title: "It has transactions that the primary lacks; it is not promoted unless it is named." },
        h("span", { class: "pill warn" }, "errant"), " ", h("span", { class: "mono gtids" }, tablet.errant_gtids))),
    h("td", { class: "fixed", title: tablet.trouble ?? "" }, dot(colour),
      tablet.reachable ? (tablet.read_only ? "read-only" : "takes writes") : stateText(tablet)),
    h("td", {}, replication(tablet, shard)),
    h("td", { class: "wide" }, semiSync(tablet, isPrimary)));
}

/** Only what is wrong with it: one that answers is as it should be. */
function vttablet(tablet) {
  const { state, disk_stalled, trouble } = tablet.vttablet ?? {};
  const words = disk_stalled ? "disk stalled" : { silent: "vttablet silent", too_old: "vttablet too old" }[state];
  return words && h("div", { class: "small", title: trouble ?? "" }, h("span", { class: "pill warn" }, words));
}

function stateText(tablet) {
  const words = tablet.state.replaceAll("_", " ");
  return [words, tablet.last_seen && h("div", { class: "small dim" }, `seen ${clock(tablet.last_seen)}`)];
}

function dot(colour) {
  return h("span", { class: `dot ${colour}` });
}

function replication(tablet, shard) {
  const { replication } = tablet;
  const isPrimary = tablet.alias === shard.primary;
  if (!tablet.reachable) return "";
  if (isPrimary && !replication) return "source of the others";
  if (!replication) return [dot("bad"), "no source"];
  const fine = replication.receiver === "running" && replication.applier === "running";
  const lag = replication.lag_seconds ? `, ${replication.lag_seconds} s behind` : "";
  if (fine) return [dot("good"), "follows ", h("span", { class: "mono" }, source(replication, shard)), lag];
  return [dot("bad"), `receiver ${replication.receiver}, applier ${replication.applier}`];
}

// The tablet that is followed, or its address where no tablet has it.
function source(replication, shard) {
  const same = (one) => one.server_uuid && one.server_uuid === replication.source_uuid
    || one.mysql_host === replication.source_host && one.mysql_port === replication.source_port;
  return shard.tablets.find(same)?.alias ?? `${replication.source_host}:${replication.source_port}`;
}

function semiSync(tablet, isPrimary) {
  const status = tablet.semi_sync;
  if (!status || !tablet.reachable) return "";
  if (isPrimary) {
    if (!status.source_enabled) return "off";
    const waiting = status.waiting_sessions ? `, ${status.waiting_sessions} waiting` : "";
    return `waits for ${status.wait_count}, ${status.clients} acking${waiting}`;
  }
  return status.replica_enabled ? "acknowledges" : "off";
}

function found(finding) {
  const colour = finding.recovery === WATCHED_ONLY ? "warn" : "bad";
  return h("details", { class: "finding small", "data-name": `${finding.code}${finding.tablet}` },
    h("summary", {}, h("span", { class: `pill ${colour}` }, finding.code), " ",
      finding.tablet && h("span", { class: "mono" }, finding.tablet, ": "), finding.why),
    h("p", { class: "dim" }, finding.recovery === WATCHED_ONLY ? "A person must look at it." : `Recovery: ${finding.recovery}.`),
    h("ul", {}, finding.evidence.map((one) => h("li", {}, one.text))));
}
