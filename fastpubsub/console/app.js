// The frame: navigation at the side, and the page that the address names. Pages are loaded when they are opened.

import {html, render, useEffect, useRef, useState} from "./lib/ui.js";
import {begin, can, logOut, session} from "./lib/session.js";
import {go, href, route} from "./lib/router.js";
import {Loading, Notice} from "./components/basics.js";
import {LogIn} from "./components/log-in.js";

const PAGES = {
  overview: () => import("./pages/overview.js"),
  topics: () => import("./pages/topics.js"),
  topic: () => import("./pages/topic.js"),
  subscriptions: () => import("./pages/subscriptions.js"),
  subscription: () => import("./pages/subscription.js"),
  message: () => import("./pages/message.js"),
  "dead-letters": () => import("./pages/dead-letters.js"),
  "dead-letters-of": () => import("./pages/dead-letters-of.js"),
  clients: () => import("./pages/clients.js"),
  client: () => import("./pages/client.js"),
  audit: () => import("./pages/audit.js"),
};

const PLACES = [
  ["overview", "Overview", () => can("topics:read") || can("subscriptions:read")],
  ["topics", "Topics", () => can("topics:read")],
  ["subscriptions", "Subscriptions", () => can("subscriptions:read")],
  ["dead-letters", "Dead letters", () => can("subscriptions:read")],
  ["clients", "Clients", () => can("clients:read") || can("clients:create")],
  ["audit", "Audit", () => can("audit:read")],
];

const OF_ONE = {topics: "topic", subscriptions: "subscription", messages: "message", "dead-letters": "dead-letters-of", clients: "client"};

function pageOf([place, id]) {
  if (id !== undefined) return OF_ONE[place];
  if (place !== undefined) return place in PAGES ? place : undefined;
  return PLACES.find(([, , isAllowed]) => isAllowed())?.[0];
}

const loaded = {};

function Page() {
  const {path} = route.value;
  const name = pageOf(path);
  const [, redraw] = useState(0);
  const main = useRef();
  const first = useRef(true);
  useEffect(() => {
    if (name && !loaded[name]) PAGES[name]().then((module) => ((loaded[name] = module.default), redraw((one) => one + 1)));
  }, [name]);
  useEffect(() => {
    if (!first.current) main.current.focus();
    first.current = false;
    scrollTo(0, 0);
  }, [path.join("/")]);
  const Component = loaded[name];
  return html`<main ref=${main} tabindex="-1" id="main">
    ${Component ? html`<${Component} key=${path.join("/")} id=${path[1]} query=${route.value.query} />` : name ? html`<${Loading} />` : html`<${Nowhere} />`}
  </main>`;
}

const Nowhere = () => html`<div class="empty"><h1>Nothing is here</h1><p>There is no such page, or the scopes of this client do not allow one. <a href="#/">Go to the beginning</a>.</p></div>`;

const MESSAGE_ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/i;

/** Takes one to a message by its id, and otherwise to the subscriptions with that in their ids. */
function GoTo() {
  const box = useRef();
  useEffect(() => {
    const focus = (event) => {
      if (event.key !== "/" || event.ctrlKey || event.metaKey || /INPUT|TEXTAREA|SELECT/.test(event.target.tagName)) return;
      event.preventDefault();
      box.current?.focus();
    };
    addEventListener("keydown", focus);
    return () => removeEventListener("keydown", focus);
  }, []);
  const submit = (event) => {
    event.preventDefault();
    const text = box.current.value.trim();
    const found = MESSAGE_ID.exec(text);
    if (text) go(found ? href(["messages", found[0]]) : href([can("subscriptions:read") ? "subscriptions" : "topics"], {q: text}));
    box.current.value = "";
  };
  return html`<form class="go" role="search" onSubmit=${submit}>
    <input ref=${box} type="search" aria-label="Go to a message id or a name" placeholder="Message id or name  /" autocomplete="off" spellcheck=${false} />
  </form>`;
}

function Frame() {
  const [place] = route.value.path;
  const current = place === "messages" ? "topics" : (place ?? "overview");
  return html`<div class="frame">
    <a class="skip" href="#main" onClick=${(event) => (event.preventDefault(), document.querySelector("#main").focus())}>Skip to the page</a>
    <aside>
      <a class="brand" href="#/"><span class="mark" aria-hidden="true"></span>fastpubsub</a>
      <${GoTo} />
      <nav class="places" aria-label="Places">
        ${PLACES.filter(([, , isAllowed]) => isAllowed()).map(([name, label]) => html`<a key=${name} href=${href([name])} aria-current=${current === name ? "page" : undefined}>${label}</a>`)}
      </nav>
      <${Who} />
    </aside>
    <${Page} />
    <${Notice} />
  </div>`;
}

function Who() {
  const {state, client, version} = session.value;
  return html`<div class="who">
    ${state === "open"
      ? html`<p class="open" title="Everyone who reaches this server may do everything. FASTPUBSUB_AUTH_ENABLED=true changes that.">Authentication is off</p>`
      : html`<p title=${client}>Client <span class="id">${client?.slice(0, 8)}</span></p><button type="button" class="quiet" onClick=${() => logOut()}>Log out</button>`}
    <p class="muted">${version ? `Version ${version}` : ""} <a href="docs" target="_blank" rel="noreferrer">API</a></p>
  </div>`;
}

function Console() {
  const {state, note} = session.value;
  if (state === "asking") return html`<${Loading} />`;
  if (state === "login") return html`<${LogIn} />`;
  if (state === "away") return html`<main class="alone"><h1>The server does not answer</h1><p>${note}</p><button type="button" onClick=${begin}>Try again</button></main>`;
  return html`<${Frame} />`;
}

document.querySelector("#app").replaceChildren();
render(html`<${Console} />`, document.querySelector("#app"));
begin();
