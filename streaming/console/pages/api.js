// What the page asks of the server. The token stays in this tab.

const TOKEN = "leeway-token";

export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: value => sessionStorage.setItem(TOKEN, value),
  forget: () => sessionStorage.removeItem(TOKEN),
};

export class Refused extends Error {
  constructor(status, words) { super(words); this.status = status; }
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (token.get()) headers.authorization = `Bearer ${token.get()}`;
  let answer;
  try {
    answer = await fetch(`api/${path}`, { ...options, headers });
  } catch {
    throw new Refused(0, "The console does not answer; it may have been ended.");
  }
  const body = await answer.json().catch(() => ({ error: `status ${answer.status}` }));
  if (!answer.ok) throw new Refused(answer.status, body.error ?? `status ${answer.status}`);
  return body;
}

export const get = (path, query = {}) => {
  const words = new URLSearchParams(query).toString();
  return ask(words ? `${path}?${words}` : path);
};

export async function post(path, form) {
  // The key is a new one after each start of the console.
  const { change_key: key } = await get("session");
  const headers = { "content-type": "application/json", "x-leeway-change": key };
  return ask(path, { method: "POST", headers, body: JSON.stringify(form) });
}
