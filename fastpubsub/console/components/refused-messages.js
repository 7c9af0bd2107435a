// Messages that an application published in SQL and that do not match the schema of their topic.

import {html, useState} from "../lib/ui.js";
import {at, send} from "../lib/api.js";
import {count, plural} from "../lib/format.js";
import {optional, useResource} from "../lib/resource.js";
import {can} from "../lib/session.js";
import {Action} from "./action.js";
import {Empty, Loading, Problem, Table, Time} from "./basics.js";
import {Preview} from "./json-view.js";
import {pageOf, Pager} from "./pager.js";

const EVERY = 5000;
const LIMIT = 50;

export function RefusedMessages({topic: {id}, query}) {
  const [chosen, setChosen] = useState([]);
  const request = () => ({path: at`/topics/${id}/refused`, query: {limit: LIMIT, ...pageOf(query)}, exact: true});
  const {data, error, reload} = useResource((signal) => optional(send(request(), signal)), [id, query.page_token], {every: EVERY});
  if (data === undefined) return error ? html`<${Problem} error=${error} />` : html`<${Loading} />`;
  if (!data?.data.length) return html`<${None} />`;
  const ids = data.data.map((one) => one.id);
  const here = chosen.filter((one) => ids.includes(one));
  const done = () => (setChosen([]), reload());
  return html`
    <${Problem} error=${error} />
    ${can("topics:publish", id) ? html`<${Actions} id=${id} chosen=${here} onDone=${done} />` : null}
    <${Messages} messages=${data.data} chosen=${here} setChosen=${setChosen} />
    <${Pager} answer=${data} limit=${LIMIT} />
  `;
}

const None = () => html`<${Empty} title="No message is refused">
  <p>An application can publish a message in its own transaction, where nothing checks it. One that does not match the schema of the topic is kept here for 30 days.</p>
<//>`;

function Actions({id, chosen, onDone}) {
  const published = ({ids}) => `Published ${ids.length} of ${plural(chosen.length, "message")}.${ids.length < chosen.length ? " The others do not match the schema yet." : ""}`;
  return html`<div class="toolbar">
    <span class="push toolbar">
      <span class="number muted" aria-live="polite">${chosen.length} selected</span>
      <${Action} label="Publish selected" isDisabled=${!chosen.length} done=${published} onDone=${onDone}
        request=${() => ({method: "POST", path: at`/topics/${id}/refused/publish`, body: chosen, headers: {Prefer: "return=representation"}})} />
      <${Action} label="Purge selected" kind="danger" isDisabled=${!chosen.length} done="Purged." onDone=${onDone}
        request=${() => ({method: "DELETE", path: at`/topics/${id}/refused`, body: chosen})}
        ask=${{title: `Purge ${count(chosen.length)} refused messages`, text: "They are deleted with their payloads. This cannot be undone.", name: id}} />
    </span>
  </div>`;
}

function Messages({messages, chosen, setChosen}) {
  const all = messages.map((one) => one.id);
  const toggle = (id) => setChosen(chosen.includes(id) ? chosen.filter((one) => one !== id) : [...chosen, id]);
  const whole = html`<input type="checkbox" aria-label="Select all on this page" checked=${chosen.length === all.length} onChange=${() => setChosen(chosen.length === all.length ? [] : all)} />`;
  return html`<${Table} label="Refused messages" columns=${[{name: whole, class: "fit"}, {name: "Refused", class: "fit"}, {name: "Message", class: "fit"}, "Reason", {name: "Payload", class: "secondary"}]}>
    ${messages.map((one) => html`<tr key=${one.id}>
      <td class="fit"><input type="checkbox" aria-label=${`Select ${one.id}`} checked=${chosen.includes(one.id)} onChange=${() => toggle(one.id)} /></td>
      <td class="fit"><${Time} at=${one.refused_at} relative /></td>
      <td class="fit id">${one.id}</td>
      <td class="reason">${one.reason}</td>
      <td class="payload secondary">${one.payload === undefined ? html`<span class="muted">needs messages:read</span>` : html`<${Preview} payload=${one.payload} />`}</td>
    </tr>`)}
  <//>`;
}
