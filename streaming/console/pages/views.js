// The pages. Each: title, how often it is drawn anew (seconds; 0: when asked), whether it is about one point, and draw.

import { get, post } from "./api.js";
import { bar, curve } from "./chart.js";
import { behind, clock, confirm, count, el, facts, number, share, table, time } from "./dom.js";

const LEVELS = { problem: "Problem", warning: "Warning", ok: "Fine" };

async function health() {
  const { findings, looked_ms: looked } = await get("health");
  const many = level => findings.filter(f => f.level === level).length;
  const counted = level => `${many(level)} ${level}${many(level) === 1 ? "" : "s"}`;
  const state = many("problem") ? `${counted("problem")} and ${counted("warning")}`
    : many("warning") ? `no problem, ${counted("warning")}` : "all is well";
  const listed = Object.keys(LEVELS).flatMap(level => findings.filter(f => f.level === level));
  return [
    el("p", {}, el("strong", { id: "state" }, `State: ${state}.`), el("span", { class: "quiet" }, ` Looked at ${time(looked)}; the same as: leeway doctor`)),
    el("ul", { class: "findings" }, listed.map(f => el("li", { class: `card ${f.level}` },
      el("p", {}, el("span", { class: "level" }, LEVELS[f.level]), ` · ${f.subject}`), el("p", {}, f.words)))),
  ];
}

async function live({ point }) {
  const [reward, drift] = await Promise.all([get("live", { point }), get("drift", { point })]);
  const bins = reward.bins, last = bins.at(-1);
  const words = last ? `Mean reward of the newest part ${number(last.mean)}, 95 % interval ${number(last.low)} to ${number(last.high)}; ${reward.changes.length === 1 ? "1 change was" : `${reward.changes.length} changes were`} found in this time.` : "There is no feedback yet.";
  const streams = drift.streams;
  return [
    el("h2", {}, "Reward"),
    last ? el("figure", {}, curve({
      title: `Mean reward of ${point}`, words, label: clock, marks: reward.changes.map(c => c.change_ms),
      points: bins.map(b => ({ x: (b.begin_ms + b.end_ms) / 2, y: b.mean, low: b.low, high: b.high })) }),
      el("figcaption", {}, `${words} Over the newest ${count(reward.feedback)} feedbacks, by time of decision; broken lines are changes.`)) : el("p", {}, words),
    last && behind("The figures of this plot", table("Mean reward by time of decision", [
      ["Until", b => time(b.end_ms)], ["Feedbacks", b => count(b.count), true], ["Mean reward", b => number(b.mean), true],
      ["95 % interval", b => `${number(b.low)} to ${number(b.high)}`], ["Default rewards", b => share(b.defaulted), true]], bins)),
    reward.changes.map(c => el("p", { class: "card warning" }, `${time(c.change_ms)}: ${c.explanation}`)),
    el("h2", {}, "Drift"),
    streams.length ? el("p", {}, `${count(drift.seen)} feedbacks watched; ${count(drift.run_length)} since the last change of the reward. How far each stream is from its reference, block by block: Jensen-Shannon distance, 0 is alike and 1 disjoint.`)
      : el("p", {}, "No stream is watched yet: the reference is still being filled, or no monitor has run."),
    el("div", { class: "streams" }, streams.map(s => {
      const said = s.blocks.length ? `Last ${number(s.blocks.at(-1), 3)}; ${s.equilibrium.course}.` : "No block is full yet.";
      return el("figure", {}, curve({ title: `Drift of ${s.stream}`, words: said, wide: 360, high: 130, floor: 0, ceiling: 1, label: i => `block ${i + 1}`,
        points: s.blocks.map((y, x) => ({ x, y })) }), el("figcaption", {}, el("strong", {}, s.stream), ` ${said}`));
    })),
  ];
}

async function decision({ query }) {
  const id = query.get("id") ?? "";
  const form = el("form", { class: "line", onsubmit: event => {
    event.preventDefault();
    location.hash = `#/decision?${new URLSearchParams({ id: new FormData(form).get("id").trim() })}`;
  } }, el("label", {}, "Decision id", el("input", { name: "id", class: "wide", value: id, required: true, maxlength: 256, autocomplete: "off", spellcheck: "false" })),
  el("button", { class: "main" }, "Look up"));
  if (!id) return [form, el("p", { class: "quiet" }, "Each look-up is noted in the audit log.")];
  const d = await get("decision", { id }).catch(error => error);
  if (d instanceof Error) return [form, el("p", { class: "card problem", role: "alert" }, d.message)];
  const shadowed = d.actions.some(a => a.shadow_probability !== null);
  const shown = features => Object.entries(features).map(([name, value]) => `${name} = ${Array.isArray(value) ? value.join(", ") : value}`).join("; ") || "–";
  return [form,
    el("h2", {}, "How it came about"), d.words.map(sentence => el("p", {}, sentence)),
    el("p", { class: `card ${d.replay.same ? "ok" : "problem"}` }, el("span", { class: "level" }, d.replay.same ? "Replayed" : "Replay"), `: ${d.replay.words}`),
    facts([["Decision", d.decision_id], ["Decision point", d.decision_point], ["Made", time(d.time_ms)], ["Policy", d.policy_version],
      ["Chosen", d.chosen ?? "–"], ["Fallback", d.fallback], ["Shadow", d.shadow_policy_version || "none"], ["Context", shown(d.context)]]),
    el("h2", {}, "Actions"),
    table("Scores and probabilities of the actions", [
      ["Action", a => a.id + (a.chosen ? " (chosen)" : "") + (a.excluded ? " (excluded)" : "")],
      ["Score", a => number(a.score), true], ["Probability", a => number(a.probability), true],
      ...(shadowed ? [["Shadow", a => number(a.shadow_probability), true]] : []), ["Features", a => shown(a.features)]], d.actions),
    d.actions_left_out ? el("p", {}, `${count(d.actions_left_out)} more actions are not shown.`) : null,
    d.list && table("The list, slot by slot", [["Slot", s => String(s.slot)], ["Item", s => s.item], ["Propensity", s => number(s.propensity), true]], d.list),
    el("h2", {}, "What came of it"),
    d.feedback ? facts([["Reward", number(d.feedback.reward) + (d.feedback.defaulted ? " (default)" : "")], ["Outcomes that count", d.feedback.outcomes], ["Time of the reward", time(d.feedback.reward_time_ms)]])
      : el("p", {}, "No feedback yet."),
    d.outcomes.length ? table("Outcomes, as they came", [["Time", o => time(o.time_ms)], ["Value", o => number(o.value), true], ["Outcome id", o => o.outcome_id || "–"],
      ["About", o => [o.task, o.item, o.slot === null ? "" : `slot ${o.slot}`].filter(Boolean).join(" ") || "–"]], d.outcomes) : el("p", {}, "No outcome was reported."),
  ];
}

async function policies({ point, session, say, again }) {
  const found = await get("policies", { point });
  const may = session.may_change && found.movable;
  const forced = el("input", { type: "checkbox", id: "force" });
  async function move(form, button) {
    button.disabled = true;
    try {
      const would = await post("policies/move", { point, force: forced.checked, ...form });
      if (would.exit_code !== 0 || would.generation === null) return say(would.words);
      const title = form.kind === "rollback" ? `Roll ${point} back?` : `Promote at ${point}?`;
      const lines = [`It would be so: ${would.words}`, "From then on it acts on all requests. It is noted in the audit log."];
      if (await confirm(title, lines, form.kind === "rollback" ? "Roll back" : "Promote")) {
        const done = await post("policies/move", { point, force: forced.checked, ...form, confirmed: would.registry_version });
        say(done.words);
        await again();
      }
    } catch (error) { say(error.message); } finally { button.disabled = false; }
  }
  const button = (text, form, label) => el("button", { "aria-label": label, onclick: event => move(form, event.currentTarget) }, text);
  return [
    facts([["Acts", found.acting ?? "none was published yet"],
      ["On trial", found.challenger ? `${found.challenger.version} (${found.challenger.mode})` : "nothing"],
      ["Promotions", found.held ?? "are not held"]]),
    may ? el("div", { class: "actions" }, button("Promote the challenger", { kind: "promote" }), button("Roll back to the champion before", { kind: "rollback" }),
      el("label", { class: "check" }, forced, "also what the gate refused, or while an alarm holds promotions"))
      : el("p", { class: "quiet" }, found.movable ? "To promote and roll back takes a token with the scope admin." : "Lists are promoted by training alone."),
    found.generations.length ? table("What training has made, the newest first", [
      ["Generation", g => String(g.generation)], ["Policy", g => g.policy_version + (g.policy_version === found.acting ? " (acts)" : "")], ["Oracle", g => g.oracle],
      ["Trained", g => time(g.trained_ms)], ["Why", g => g.reason], ["Rows", g => count(g.rows), true], ["Verdict", g => `${g.promoted ? "Promoted" : "Not promoted"}. ${g.verdict}`],
      ...(may ? [["Change", g => (g.registry_version ? button("Promote…", { kind: "promote", version: g.registry_version }, `Promote version ${g.registry_version}, ${g.policy_version}`) : "")]] : [])],
    found.generations) : el("p", {}, "Nothing was trained yet."),
  ];
}

// The newest alarm that was shown, and to whom.
let shown = { session: null, newest: "" };

async function alarms({ session, say, again }) {
  const found = await get("alarms");
  const known = found.alarms.findIndex(a => a.alarm_id === shown.newest);
  const fresh = shown.session !== session ? 0 : known < 0 ? found.alarms.length : known;
  if (fresh) say(`New: ${found.alarms[0].decision_point}, ${found.alarms[0].monitor} ${found.alarms[0].stream}${fresh > 1 ? `, and ${fresh - 1} more` : ""}`);
  shown = { session, newest: found.alarms[0]?.alarm_id ?? "" };
  const acknowledge = async alarm => {
    const given = await confirm("Acknowledge this alarm?", [alarm.explanation, "What it holds is released. It is noted in the audit log."], "Acknowledge",
      [el("label", {}, "Note: what came of it", el("textarea", { name: "note", rows: 3, maxlength: 2000 }))]);
    if (given === null) return;
    try {
      say((await post("alarms/acknowledge", { alarm_id: alarm.alarm_id, note: given.note })).words);
    } catch (error) { say(error.message); }
    await again();
  };
  return [
    Object.entries(found.held).map(([name, words]) => el("p", { class: "card warning" }, `${name}: ${words}`)),
    found.alarms.length ? null : el("p", {}, "There was no alarm."),
    found.alarms.map(a => el("article", { class: `card ${a.acknowledged_ms || a.explained ? "" : "warning"}` },
      el("h2", {}, `${a.decision_point}: ${a.monitor} ${a.stream}`), el("p", {}, a.explanation), a.echoes.length ? el("p", {}, `Seen in these streams too: ${a.echoes.join(", ")}.`) : null, a.remedy && el("p", {}, a.remedy),
      el("p", { class: "quiet" }, `Change about ${time(a.change_ms)}, found ${time(a.detected_ms)}; effect ${number(a.effect, 3)}, probability ${number(a.probability, 3)}; follows: ${a.reactions.join(", ") || "nothing"}. Alarm ${a.alarm_id}`),
      a.acknowledged_ms ? el("p", {}, `Acknowledged ${time(a.acknowledged_ms)}${a.note ? `: ${a.note}` : ""}`)
        : session.may_change && el("button", { onclick: () => acknowledge(a), "aria-label": `Acknowledge alarm ${a.alarm_id.slice(0, 12)} of ${a.decision_point}` }, "Acknowledge…"))),
    found.more ? el("p", {}, `${count(found.more)} older ones: leeway drift list`) : null,
  ];
}

async function generations({ point }) {
  const found = await get("generations", { point });
  const rows = found.generations;
  if (!rows.length) return [el("p", {}, "No generation has acted yet.")];
  const estimated = rows.filter(r => r.estimate !== null);
  const words = `Mean reward of ${rows.length} generations, the last ${number(rows.at(-1).reward)}.`;
  return [
    el("figure", {}, curve({ title: `Generations of ${point}`, words, dots: true, label: g => `generation ${g}`,
      points: rows.map(r => ({ x: r.generation, y: r.reward, low: r.low, high: r.high })), crosses: estimated.map(r => ({ x: r.generation, y: r.estimate })),
      marks: found.oscillation.declared_after === null ? [] : [found.oscillation.declared_after] }),
    el("figcaption", {}, `${words} Bars are 95 % intervals, crosses what the gate had estimated.`)),
    el("p", { class: `card ${found.oscillation.declared_after === null ? "" : "warning"}` }, found.oscillation.words),
    table("Generations", [["Generation", r => String(r.generation)], ["Feedbacks", r => count(r.feedback), true], ["Reward", r => number(r.reward), true],
      ["95 % interval", r => `${number(r.low)} to ${number(r.high)}`], ["Estimate", r => number(r.estimate), true], ["Kept", r => r.kept || "–"],
      ["Entropy", r => number(r.entropy, 3), true], ["Support", r => number(r.support, 3), true], ["Calibration", r => number(r.calibration, 3), true], ["Verdict", r => r.verdict || "–"]], rows),
  ];
}

async function join() {
  const found = await get("join");
  return [
    found.points.map(p => {
      const words = `${count(p.decisions)} decisions = ${count(p.rewarded)} with reward + ${count(p.defaulted)} with the default + ${count(p.pending)} pending`;
      return el("section", { class: `card ${p.balanced ? "ok" : "problem"}` }, el("h2", {}, p.point),
        el("p", {}, el("span", { class: "level" }, p.balanced ? "Balanced" : "Does not balance"), `: ${words}.`),
        bar({ title: `The join of ${p.point}`, words, parts: ["rewarded", "defaulted", "pending"].map(kind => ({ kind, value: p[kind] })) }));
    }),
    table("What the join has counted", [["Decision point", p => p.point], ["Window", p => `${number(p.window_ms / 1000)} s`, true], ["Duplicate decisions", p => count(p.duplicate_decisions), true],
      ["Duplicate outcomes", p => count(p.duplicate_outcomes), true], ["Late outcomes", p => count(p.late_outcomes), true], ["Surplus outcomes", p => count(p.surplus_outcomes), true],
      ["Dead letters", p => count(p.dead_letters), true], ["Windows closed until", p => time(p.watermark_ms)]], found.points),
    table("How far each role is behind the log", [["Role", l => l.role], ["Records", l => count(l.records), true], ["Oldest", l => `${number(l.seconds, 3)} s`, true]], found.lag),
    el("p", {}, `${count(found.dead_letters)} dead letters in the log; see: leeway dlq list`),
  ];
}

export const VIEWS = {
  health: { title: "Health", every: 10, draw: health },
  live: { title: "Reward and drift", every: 5, point: "any", draw: live },
  decision: { title: "Decision", every: 0, draw: decision },
  policies: { title: "Policies", every: 0, point: "any", draw: policies },
  alarms: { title: "Alarms", every: 5, draw: alarms },
  generations: { title: "Generations", every: 30, point: "decision point", draw: generations },
  join: { title: "Join", every: 5, draw: join },
};
