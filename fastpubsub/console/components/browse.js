// The messages of a subscription by their state. Looking takes none of them.

import {html} from "../lib/ui.js";
import {at, send} from "../lib/api.js";
import {count, plural} from "../lib/format.js";
import {useHeld} from "../lib/held.js";
import {here} from "../lib/router.js";
import {optional, useResource} from "../lib/resource.js";
import {can} from "../lib/session.js";
import {Curl} from "./action.js";
import {Empty, Loading, MessageLink, Problem, Table, Time} from "./basics.js";
import {Preview} from "./json-view.js";
import {Search} from "./search.js";

const LIMIT = 50;
const EVERY = 3000;

const STATES = {
  ahead: ["Ahead", "Nothing waits to be delivered", "Consumers have got everything that passes the filter."],
  leased: ["Leased", "No consumer holds a message", "A message is leased from the moment a consumer gets it until it is acknowledged, given back, or its deadline passes."],
  waiting: ["Waiting", "No message waits for a retry", "A message that was given back, or whose deadline passed, waits here for its next delivery."],
  dead: ["Dead", "There are no dead letters", "A message becomes a dead letter when a consumer rejects it, or after its last attempt."],
};

const MORE = {
  ahead: [],
  leased: [["Consumer", (one) => html`<span class="id">${one.consumer_id}</span>`], ["Attempt", (one) => count(one.delivery_attempts)], ["Since", (one) => html`<${Time} at=${one.leased_at} relative />`], ["Until", (one) => html`<${Time} at=${one.lease_expires_at} relative />`]],
  waiting: [["Due", (one) => html`<${Time} at=${one.due_at} relative />`], ["Attempts", (one) => count(one.delivery_attempts)], ["Reason", (one) => one.reason]],
  dead: [["Died", (one) => html`<${Time} at=${one.died_at} />`], ["Attempts", (one) => count(one.delivery_attempts)], ["Reason", (one) => one.reason]],
};

export function Browse({subscription: {id, topic_id}, query: {state, q, from}}) {
  const current = state in STATES ? state : "ahead";
  const request = () => ({path: at`/subscriptions/${id}/messages/browse`, query: {state: current, q, from, limit: LIMIT}, exact: true});
  const {data, error} = useResource((signal) => optional(send(request(), signal)), [id, current, q, from], {every: from ? 0 : EVERY});
  if (data === null) return html`<${Empty} title="This server cannot browse subscriptions"><p>Ask for a message by its id in the box at the side.</p><//>`;
  return html`
    <div class="toolbar">
      <nav class="tabs small" aria-label="State">
        ${Object.entries(STATES).map(([name, [label]]) => html`<a key=${name} href=${here({state: name, from: undefined})} aria-current=${name === current ? "page" : undefined}>${label}</a>`)}
      </nav>
      ${can("messages:read", topic_id) ? html`<${Search} label="Search payloads and attributes" placeholder="text, payload.field=value" />` : null}
      <span class="muted push">Looked at ${data ? plural(data.looked_at, "message") : "…"}</span>
      <${Curl} request=${request} />
    </div>
    <${Problem} error=${error} />
    ${data ? html`<${Page} answer=${data} state=${current} from=${from} q=${q} />` : error ? null : html`<${Loading} />`}
  `;
}

function Page({answer, state, from, q}) {
  const [, title, text] = STATES[state];
  const more = MORE[state];
  const columns = [{name: "Published", class: "fit"}, {name: "Message", class: "fit"}, ...more.map(([name]) => ({name, class: "fit"})), "Payload"];
  return html`
    ${answer.data.length
      ? html`<${Rows} key=${state} ...${{messages: answer.data, columns, more}} />`
      : html`<${Empty} title=${q ? "Nothing was found here" : title}><p>${q ? `${plural(answer.looked_at, "message was", "messages were")} looked at.` : text}</p><//>`}
    ${from || answer.next
      ? html`<nav class="pager" aria-label="Places in the subscription">
          ${from ? html`<a href=${here({from: undefined})}>First</a>` : null}
          ${answer.next ? html`<a href=${here({from: answer.next})}>${q ? "Search further" : "Next"}</a>` : html`<span class="muted">That is all.</span>`}
        </nav>`
      : null}
  `;
}

function Rows({messages, columns, more}) {
  const [shown, holds] = useHeld(messages);
  return html`<${Table} label="Messages" columns=${columns} ...${holds}>${shown.map((one, place) => html`<tr key=${place}>
    <td class="fit"><${Time} at=${one.created_at} /></td>
    <td class="fit"><${MessageLink} id=${one.id} /></td>
    ${more.map(([name, show]) => html`<td key=${name} class=${name === "Reason" ? "reason" : "fit"}>${show(one)}</td>`)}
    <td class="payload"><${Preview} payload=${one.payload} /></td>
  </tr>`)}<//>`;
}
