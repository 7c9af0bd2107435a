// Small things that every page uses.

import {html, signal, useEffect, useRef} from "../lib/ui.js";
import {ago, compact, count, duration, localTime, utcTime} from "../lib/format.js";
import {href} from "../lib/router.js";

export const Time = ({at, relative}) =>
  at ? html`<time dateTime=${at} title=${`${localTime(at)} · ${utcTime(at)}`}>${relative ? ago(at) : localTime(at)}</time>` : "–";

const TIME = /(\d{4}-\d\d-\d\dT\d\d:\d\d:[\d.]+Z)/;

/** A sentence of the server, with its times as those of the page. */
export const Told = ({text}) => String(text ?? "").split(TIME).map((part, nth) => (nth % 2 ? html`<${Time} key=${nth} at=${part} />` : part));

export const Count = ({value, isEstimated}) =>
  html`<span class="number" title=${count(value)}>${isEstimated ? "~" : ""}${compact(value)}</span>`;

export const Age = ({seconds}) => html`<span class="number">${duration(seconds)}</span>`;

export const TopicLink = ({id}) => html`<a class="id" href=${href(["topics", id])}>${id}</a>`;
export const SubscriptionLink = ({id, query}) => html`<a class="id" href=${href(["subscriptions", id], query)}>${id}</a>`;
export const MessageLink = ({id}) => html`<a class="id" href=${href(["messages", id])} title=${id}>…${id.slice(-12)}</a>`;

const STATES = {
  ahead: "not delivered yet",
  leased: "with a consumer",
  waiting: "waits for its next delivery",
  dead: "a dead letter",
  settled: "done",
  filtered: "kept out by the filter",
  skipped: "passed by a seek",
};

export const State = ({state}) => html`<span class=${`state ${state}`} title=${STATES[state]}>${state.replaceAll("_", " ")}</span>`;

export const Problem = ({error, children}) =>
  error ? html`<p class="problem" role="alert">${children}${error.message}</p>` : null;

export const Loading = () => html`<p class="muted loading" aria-busy="true">Loading…</p>`;

/** Says what belongs here, and the next step. */
export const Empty = ({title, children}) => html`<div class="empty"><h2>${title}</h2>${children}</div>`;

/** A heading of a page: where it belongs, what it is, and what can be done. */
export function Heading({above, title, children, isId}) {
  useEffect(() => {
    document.title = `${title} · fastpubsub`;
  }, [title]);
  return html`<header class="heading">
    <div>
      ${above ? html`<p class="above">${above}</p>` : null}
      <h1 class=${isId ? "id" : ""}>${title}</h1>
    </div>
    <div class="actions">${children}</div>
  </header>`;
}

/** [[name, address, is it this one]] as links, so that a tab has an address. */
export const Tabs = ({label, tabs}) =>
  html`<nav class="tabs" aria-label=${label}>
    ${tabs.map(([name, address, isCurrent]) => html`<a href=${address} aria-current=${isCurrent ? "page" : undefined}>${name}</a>`)}
  </nav>`;

/** A table that can be scrolled with the keyboard where it is wider than the screen. */
export const Table = ({label, columns, children, ...more}) =>
  html`<div class="scroll" tabindex="0" role="region" aria-label=${label} ...${more}>
    <table>
      <thead><tr>${columns.map((one) => html`<th scope="col" class=${one.class ?? ""}>${one.name ?? one}</th>`)}</tr></thead>
      <tbody>${children}</tbody>
    </table>
  </div>`;

export const Field = ({label, hint, children, isWide}) =>
  html`<label class=${`field ${isWide ? "wide" : ""}`}><span>${label}</span>${children}${hint ? html`<small>${hint}</small>` : null}</label>`;

/** Facts as pairs; those without a value are left out. */
export const Facts = ({facts}) =>
  html`<dl class="facts">
    ${facts.filter(([, value]) => value !== undefined && value !== null).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>`;

const notice = signal(null);

/** Says something at the edge of the screen, and to screen readers. */
export function tell(text) {
  const told = {text};
  notice.value = told;
  setTimeout(() => notice.value === told && (notice.value = null), 6000);
}

export const Notice = () => html`<div class="notice" role="status" aria-live="polite">${notice.value ? html`<p>${notice.value.text}</p>` : null}</div>`;

/** A dialog of the browser: it keeps the focus inside, and gives it back. Escape closes it, Enter in a field does what it is for. */
export function Dialog({title, onClose, children}) {
  const dialog = useRef();
  useEffect(() => {
    const element = dialog.current; // its ref is empty when the page takes it away
    element.showModal();
    element.querySelector("form input, .form input, footer button")?.focus();
    return () => element.close();
  }, []);
  const enter = ({key, target}) => {
    if (key === "Enter" && target.matches(".form input:not([type=checkbox])")) dialog.current.querySelector("footer .primary")?.click();
  };
  return html`<dialog ref=${dialog} onClose=${onClose} onKeyDown=${enter} aria-label=${title}>
    <header><h2>${title}</h2><button type="button" class="quiet" onClick=${() => dialog.current.close()} aria-label="Close">×</button></header>
    ${children}
  </dialog>`;
}
