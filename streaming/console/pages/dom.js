// Elements. Whatever comes from the log goes in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false));
  return node;
}

export const el = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

export const number = (value, digits = 4) =>
  value === null || value === undefined ? "–" : Number(value.toPrecision(digits)).toLocaleString("en", { maximumSignificantDigits: digits });
export const count = value => (value === null || value === undefined ? "–" : value.toLocaleString("en"));
export const share = value => (value === null ? "–" : `${number(100 * value, 3)} %`);
export const time = ms => (ms ? new Date(ms).toISOString().replace("T", " ").replace(/\.\d+Z$/, " UTC") : "–");
export const clock = ms => new Date(ms).toISOString().slice(11, 19);

// columns: [title, row => text or node, is it a number?]
export function table(caption, columns, rows) {
  const kind = column => (column[2] ? { class: "number" } : {});
  return el("div", { class: "table", tabindex: "0", role: "region", "aria-label": caption },
    el("table", {},
      el("caption", {}, caption),
      el("thead", {}, el("tr", {}, columns.map(c => el("th", { scope: "col", ...kind(c) }, c[0])))),
      el("tbody", {}, rows.map(row => el("tr", {}, columns.map((c, place) =>
        el(place ? "td" : "th", { ...(place ? {} : { scope: "row" }), ...kind(c) }, c[1](row))))))));
}

export const facts = pairs =>
  el("dl", { class: "facts" }, pairs.map(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]));

export const behind = (summary, ...children) => el("details", {}, el("summary", {}, summary), children);

// Asks before something is changed. Resolves with the form's values, or null.
export function confirm(title, lines, action, fields = []) {
  return new Promise(resolve => {
    const form = el("form", { method: "dialog" },
      el("h2", { id: "ask" }, title), lines.map(line => el("p", {}, line)), fields,
      el("div", { class: "actions" },
        el("button", { class: "main", value: "yes" }, action),
        el("button", { value: "no", formnovalidate: true }, "Cancel")));
    const dialog = el("dialog", { "aria-labelledby": "ask" }, form);
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "yes" ? Object.fromEntries(new FormData(form)) : null);
      dialog.remove();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
