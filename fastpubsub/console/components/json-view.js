// A payload as a tree and as text. Whatever is in it stays text: nothing is a link, and nothing is HTML.

import {html, useState} from "../lib/ui.js";
import {isObject, oneLine, pretty} from "../lib/json.js";
import {copy} from "./action.js";

const LONG_TEXT = 2000;
const MANY = 100;

/** `raw`: the text as it was published, where it is known. */
export function JsonView({value, raw, label = "Payload"}) {
  const [isTree, setTree] = useState(true);
  const text = raw ?? pretty(value);
  return html`<section class="json" aria-label=${label}>
    <header>
      <h2>${label}</h2>
      <div class="switch" role="group" aria-label=${`${label} as`}>
        <button type="button" aria-pressed=${isTree} onClick=${() => setTree(true)}>Tree</button>
        <button type="button" aria-pressed=${!isTree} onClick=${() => setTree(false)}>Raw</button>
      </div>
      <button type="button" class="quiet" onClick=${() => copy(text, label.toLowerCase())}>Copy</button>
    </header>
    ${isTree ? html`<div class="tree"><${Node} value=${value} isOpen /></div>` : html`<pre tabindex="0" class="raw">${text}</pre>`}
  </section>`;
}

function Node({name, value, isOpen}) {
  if (!isObject(value)) return html`<div class="leaf"><${Name} name=${name} /><${Scalar} value=${value} /></div>`;
  const entries = Object.entries(value);
  const size = Array.isArray(value) ? `[${entries.length}]` : `{${entries.length}}`;
  if (!entries.length) return html`<div class="leaf"><${Name} name=${name} /><span class="muted">${Array.isArray(value) ? "[]" : "{}"}</span></div>`;
  return html`<details open=${isOpen}>
    <summary><${Name} name=${name} /><span class="muted">${size}</span></summary>
    <${Entries} entries=${entries} />
  </details>`;
}

function Entries({entries}) {
  const [shown, setShown] = useState(MANY);
  return html`<div class="entries">
    ${entries.slice(0, shown).map(([name, value]) => html`<${Node} key=${name} name=${name} value=${value} isOpen=${entries.length <= 20} />`)}
    ${entries.length > shown ? html`<button type="button" class="quiet" onClick=${() => setShown(shown + 10 * MANY)}>${entries.length - shown} more</button>` : null}
  </div>`;
}

const Name = ({name}) => (name === undefined ? null : html`<span class="name">${name}</span><span class="muted">: </span>`);

function Scalar({value}) {
  const [isWhole, setWhole] = useState(false);
  const text = oneLine(value);
  const kind = typeof value === "string" ? "string" : value === null || typeof value === "boolean" ? "word" : "digits";
  const isCut = text.length > LONG_TEXT && !isWhole;
  return html`<span class=${kind}>${isCut ? text.slice(0, LONG_TEXT) : text}</span>${isCut
    ? html`<button type="button" class="quiet" onClick=${() => setWhole(true)}>… ${text.length - LONG_TEXT} more characters</button>`
    : null}`;
}

const PREVIEW = 240;

/** One line of a payload, for tables. */
export function Preview({payload}) {
  if (payload === undefined) return html`<span class="muted" title="To see payloads needs the scope messages:read">not shown</span>`;
  const text = oneLine(payload);
  return html`<code class="preview">${text.length > PREVIEW ? `${text.slice(0, PREVIEW)}…` : text}</code>`;
}
