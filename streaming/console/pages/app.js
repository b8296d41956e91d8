// From the address to a page: #/health, #/live?point=offers ...

import { get, token } from "./api.js";
import { el } from "./dom.js";
import { VIEWS } from "./views.js";

const main = document.getElementById("main"), said = document.getElementById("said");
let session = null, turn = 0, timer = 0, hush = 0;

function say(words) {
  clearTimeout(hush);
  said.textContent = words;
  hush = setTimeout(() => { said.textContent = ""; }, 20_000);
}

function where() {
  const [path, words = ""] = location.hash.replace(/^#\//, "").split("?");
  return { name: Object.hasOwn(VIEWS, path) ? path : "health", query: new URLSearchParams(words) };
}

function menu(name) {
  document.getElementById("pages").replaceChildren(...Object.entries(VIEWS).map(([key, view]) =>
    el("li", {}, el("a", { href: `#/${key}`, "aria-current": key === name ? "page" : false }, view.title))));
  document.getElementById("version").textContent = session?.version ?? "";
  const who = document.getElementById("who");
  who.replaceChildren(...(session?.who ? [`You are ${session.who}. `, el("button", { onclick: () => { token.forget(); session = null; show(true); } }, "Forget the token")] : []));
}

function askToken(words) {
  const form = el("form", { class: "line", onsubmit: event => {
    event.preventDefault();
    token.set(new FormData(form).get("token").trim());
    show(true);
  } }, el("label", {}, "Token", el("input", { name: "token", type: "password", class: "wide", required: true, autocomplete: "off" })), el("button", { class: "main" }, "Enter"));
  main.replaceChildren(el("h1", {}, "Who are you?"), el("p", { role: "alert" }, words), form,
    el("p", { class: "quiet" }, "It stays in this tab until it is closed."));
}

function chooser(view, name, query) {
  const points = session.points.filter(p => view.point === "any" || p.kind === view.point);
  const chosen = points.find(p => p.name === query.get("point")) ?? points[0];
  const select = el("select", { onchange: () => { location.hash = `#/${name}?${new URLSearchParams({ point: select.value })}`; } },
    points.map(p => el("option", { value: p.name, selected: p === chosen }, p.name)));
  return { point: chosen?.name, node: el("form", { class: "line", onsubmit: event => event.preventDefault() }, el("label", {}, "Decision point", select)) };
}

// Whether somebody is at something in the page: then it is not drawn anew under their hands.
const within = () => main.contains(document.activeElement) && document.activeElement !== main;
const busy = () => within() || document.querySelector("main details[open], dialog[open]") !== null || document.hidden;

async function show(moved) {
  const mine = ++turn;
  clearTimeout(timer);
  const { name, query } = where(), view = VIEWS[name];
  if (!session && "guarded" in document.body.dataset && !token.get()) {
    menu(name);
    askToken("This console asks for a token with the scope read or admin.");
    return;
  }
  try {
    session ??= await get("session");
  } catch (error) {
    if (mine !== turn) return;
    menu(name);
    if (error.status === 401) askToken(error.message);
    else main.replaceChildren(el("h1", {}, view.title), el("p", { class: "card problem", role: "alert" }, error.message));
    return;
  }
  if (moved) { menu(name); document.title = `${view.title} – Leeway console`; main.setAttribute("aria-busy", "true"); }
  const { point, node } = view.point ? chooser(view, name, query) : {};
  let content;
  try {
    if (view.point && !point) content = [el("p", {}, "There is none that this page is about.")];
    else content = await view.draw({ point, query, session, say, again: () => show(false) });
  } catch (error) {
    if (error.status === 401) { session = null; if (mine === turn) askToken(error.message); return; }
    content = [el("p", { class: "card problem", role: "alert" }, error.message)];
  }
  if (mine !== turn) return;
  const focused = moved || within();  // what has the focus is drawn anew: the next Tab goes on from here
  main.replaceChildren(...[el("h1", {}, view.title), view.point && point ? node : null, content].flat(Infinity).filter(Boolean));
  main.removeAttribute("aria-busy");
  if (focused) main.focus({ preventScroll: true });
  if (view.every) timer = setTimeout(tick, view.every * 1000);
}

function tick() {
  if (busy()) timer = setTimeout(tick, 1000);
  else show(false);
}

document.getElementById("skip").addEventListener("click", event => { event.preventDefault(); main.focus(); });
addEventListener("hashchange", () => show(true));
show(true);
