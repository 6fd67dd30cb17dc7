// The page to try the server. Text of the catalogue enters the page as text alone (textContent).

const SHOWN = 10, FOUND = 8, BEGINNINGS = 6;
const VIEWS = {
  known: "The model reads the clicks, and what a language model said of this session.",
  predicted: "The model reads the clicks, and a prediction of what a language model would say of this session.",
  titles: "The model reads the clicks and the titles of the items.",
  absent: "Clicks alone: there is no view of a language model for this session.",
};
const NO_TEXT = "Clicks alone: this model reads no text.";
const PARTS = {
  long_term: "Long-term intent", short_term: "Short-term intent",
  RepeatExplore: "Repeats: how readily visitors return to an item", SequentialRules: "Rules: which items followed which",
};
const state = { key: "", session: [], models: [], turn: 0, search: null, failed: null };

const $ = (id) => document.getElementById(id);
const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
const titled = (item) => item.title || item.id;

// An element with properties, attributes (those with a hyphen) and children, of which strings become text.
function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const named = (item) =>
  make("span", { className: "name" }, make("strong", {}, titled(item)), item.title ? make("small", {}, item.id) : null);

async function api(path, body, signal) {
  const headers = state.key ? { Authorization: `Bearer ${state.key}` } : {};
  const options = { headers, signal, cache: "no-store" };
  if (body) Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  if (body) headers["Content-Type"] = "application/json";
  let answer, content;
  try {
    answer = await fetch(path, options);
    content = await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached, or the key has characters that no key has.");
  }
  if (answer.status === 401) {
    $("key-form").hidden = false;
    $("key-said").textContent = state.key ? "The server does not know this key." : $("key-said").textContent;
    $("key").focus();
    throw new Error("The server needs an API key.");
  }
  if (!answer.ok) throw new Error(`The server refuses: ${content.error}${content.field ? ` (${content.field})` : ""}.`);
  return content;
}

// Run a step and show its error, which the success of another step does not hide.
async function trying(step) {
  try {
    await step();
    if (step === again || step === state.failed) $("trouble").hidden = true;
  } catch (error) {
    state.failed = step;
    $("trouble").hidden = !$("key-form").hidden;
    $("trouble-said").textContent = error.message;
  }
}

async function find() {
  state.search?.abort();
  state.search = new AbortController();
  const text = $("query").value.trim();
  const beginning = text === "";
  const path = beginning ? "v1/items?limit=100" : `v1/items?query=${encodeURIComponent(text)}&limit=${FOUND}`;
  let found;
  try {
    found = await api(path, null, state.search.signal);
  } catch (error) {
    if (error.name === "AbortError") return;  // a newer search goes on
    throw error;
  }
  const step = beginning ? Math.max(1, Math.floor(found.items.length / BEGINNINGS)) : 1;
  const items = found.items.filter((_, place) => place % step === 0).slice(0, beginning ? BEGINNINGS : FOUND);
  $("items").replaceChildren(...items.map((item) => {
    const add = make("button", { type: "button", onclick: () => click(item) }, named(item));
    return make("li", {}, add);
  }));
  $("found").textContent = beginning ? (items.length ? "Some items to begin with" : "")
    : found.total > FOUND ? `${count(found.total, "item")}; the first ${FOUND}` : count(found.total, "item");
}

function click(item) {
  state.session.push(item);
  return shown();
}

function remove(place) {
  state.session.splice(place, 1);
  const next = shown();
  const left = $("clicks").querySelectorAll("button");
  (left[Math.min(place, left.length - 1)] ?? $("query")).focus();
  return next;
}

// Show the session, and recommendations for it.
function shown() {
  $("clicks").replaceChildren(...state.session.map((item, place) => make("li", {}, named(item),
    make("button", { type: "button", "aria-label": `Remove click ${place + 1}, ${titled(item)}`, onclick: () => remove(place) }, "\u00d7"))));
  $("no-clicks").hidden = state.session.length > 0;
  $("clear").hidden = $("jump").hidden = state.session.length === 0;
  $("jump").textContent = `${count(state.session.length, "click")}: see the recommendations`;
  return trying(recommend);
}

async function recommend() {
  const turn = ++state.turn;
  const session = state.session.map((item) => item.id);
  if (session.length === 0) {
    $("lists").replaceChildren();
    $("ignored").hidden = true;
    $("said").textContent = "They appear after the first click.";
    return;
  }
  $("lists").setAttribute("aria-busy", "true");
  try {
    const asked = { sessions: [session], k: SHOWN, seen: $("seen").checked };
    const answers = await Promise.all(state.models.map((model) => api(`${model.path}/recommend`, asked)));
    if (turn !== state.turn) return;  // the session has changed meanwhile
    const found = answers.map((answer) => answer.recommendations[0]);
    $("lists").replaceChildren(...found.map((one, place) => list(state.models[place], one, session, place, found)));
    const { ignored } = found[0];
    $("ignored").hidden = ignored.length === 0;
    $("ignored").textContent = `The catalogue lacks ${ignored.join(", ")}.`;
    const first = found[0].item_ids.length ? `, the first is ${found[0].titles[0] || found[0].item_ids[0]}` : "";
    $("said").textContent = `${count(found[0].item_ids.length, "item")} after ${count(session.length, "click")}${first}.`;
    $("lists").querySelector(".why")?.click();
  } finally {
    if (turn === state.turn) $("lists").removeAttribute("aria-busy");
  }
}

function list(model, found, session, place, all) {
  const others = all.filter((one) => one !== found).map((one) => new Set(one.item_ids));
  const items = found.item_ids.map((id, rank) => {
    const item = { id, title: found.titles[rank] };
    const panel = make("div", { className: "reasons", id: `reasons-${place}-${rank}`, hidden: true });
    const why = make("button", {
      type: "button", className: "why", "aria-expanded": "false", "aria-controls": panel.id, "aria-label": `Why? ${titled(item)}`,
      onclick: () => reasons(model, session, id, why, panel),
    }, "Why?");
    const add = make("button", {
      type: "button", className: "add", "aria-label": `Click ${titled(item)}`,
      onclick: () => { $("next-heading").focus(); return click(item); },
    }, "+");
    const name = named(item);
    if (others.some((ids) => !ids.has(id))) name.firstChild.after(" ", make("span", { className: "tag" }, "only here"));
    return make("li", {}, make("div", { className: "row" },
      make("span", { className: "rank", "aria-hidden": "true" }, `${rank + 1}`), name,
      make("span", { className: "buttons" }, why, add)), panel);
  });
  const view = found.view === "known" && model.views === "titles" ? "titles" : found.view;
  const read = model.views ? VIEWS[view] ?? `Views: ${view}.` : NO_TEXT;
  return make("article", { className: "card list", "aria-label": model.name },
    all.length > 1 ? make("h3", {}, model.name) : null,
    make("p", { className: "quiet" }, found.reason ? `No item: ${found.reason}.` : read),
    make("ol", { "aria-label": `Recommendations of ${model.name}` }, ...items));
}

async function reasons(model, session, item, button, panel) {
  const open = panel.hidden;
  panel.hidden = !open;
  button.setAttribute("aria-expanded", `${open}`);
  if (!open || panel.hasChildNodes()) return;
  panel.replaceChildren(make("p", { className: "quiet" }, "Each part is left out once \u2026"));
  try {
    panel.replaceChildren(...explained((await api(`${model.path}/explain`, { session, item })).explanation, model));
  } catch (error) {
    panel.replaceChildren(make("p", { role: "alert" }, error.message));
    panel.append(make("button", {
      type: "button",
      onclick: () => { panel.replaceChildren(); panel.hidden = true; button.focus(); return reasons(model, session, item, button, panel); },
    }, "Try again"));
  }
}

function explained(found, model) {
  const parts = [...found.clicks, ...found.views, ...found.heads];
  const most = Math.max(0.1, ...parts.map((part) => Math.abs(part.effect)));
  const group = (heading, effects) => effects.length ? [make("h4", {}, heading), make("ul", {}, ...effects)] : [];
  const share = (100 * found.probability).toLocaleString("en", { maximumSignificantDigits: 2 });
  return [
    make("p", {}, `Place ${found.rank.toLocaleString("en")} of ${model.items.toLocaleString("en")}, with a probability of ${share}\u00a0%.`),
    ...group("Clicks", found.clicks.map((one) => effect(one.title || one.item_id, `click ${one.place + 1}`, one, most))),
    ...group("Text", found.views.map((one) => effect(PARTS[one.name] ?? one.name, made(one.intents), one, most))),
    ...group("Parts of the model", found.heads.map((one) => effect(PARTS[one.name] ?? one.name, "", one, most))),
    found.clicks.length ? null : make("p", { className: "quiet" }, "With a single click there is no click to leave out."),
  ].filter((one) => one !== null);
}

const made = (intents) => intents.length ? `made of ${intents.map(([id, title]) => title || id).join("; ")}` : "";

function effect(name, detail, part, most) {
  const side = Math.abs(part.effect) < 0.005 ? "none" : part.effect > 0 ? "up" : "down";
  const bar = make("i", { className: side });
  bar.style.width = `${50 * Math.abs(part.effect) / most}%`;
  return make("li", { className: "effect" },
    make("span", { className: "name" }, name, detail ? make("small", {}, detail) : null),
    make("span", { className: "bar", "aria-hidden": "true" }, bar),
    make("span", { className: `factor ${side}` }, factor(part.effect),
      make("small", {}, `place\u00a0${part.rank_without.toLocaleString("en")} without`)));
}

function factor(effect) {
  const times = Math.exp(effect);
  if (times >= 1000) return "\u00d7 >1,000";
  if (times < 0.01) return "\u00d7 <0.01";
  const digits = times < 10 ? 2 : times < 100 ? 1 : 0;
  return `\u00d7${times.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })}`;
}

async function begin() {
  const ready = await api("ready");
  const model = (one, path) => ({ path, name: one.model, items: one.items, views: one.views });
  state.models = [model(ready, "v1"), ...(ready.compared ? [model(ready.compared, "v1/compared")] : [])];
  const described = (one) => `${one.model}, bundle ${one.bundle}, ${count(one.items, "item")}`;
  $("about").textContent = [ready, ready.compared].filter(Boolean).map(described).join("; ");
  await find();
}

async function again() {
  await begin();
  await recommend();
}

let pause;
$("query").addEventListener("input", () => {
  clearTimeout(pause);
  pause = setTimeout(() => trying(find), 200);
});
$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  $("items").querySelector("button")?.focus();
});
$("find").addEventListener("keydown", (event) => {
  const stops = [$("query"), ...$("items").querySelectorAll("button")];
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const place = stops.indexOf(document.activeElement);
  if (!step || place < 0 || !stops[place + step]) return;
  event.preventDefault();
  stops[place + step].focus();
});
$("clear").addEventListener("click", () => { state.session = []; $("query").focus(); shown(); });
$("seen").addEventListener("change", () => trying(recommend));
$("retry").addEventListener("click", () => trying(again));
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  state.key = $("key").value.trim();
  $("key-form").hidden = true;
  $("key").value = "";
  trying(again).then(() => { if ($("key-form").hidden) $("query").focus(); });
});
trying(again);
