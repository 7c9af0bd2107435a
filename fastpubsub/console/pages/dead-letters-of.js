// The dead letters of a subscription: by reason, one by one, and all that match as a job.

import {html, useState} from "../lib/ui.js";
import {at, get, send} from "../lib/api.js";
import {count} from "../lib/format.js";
import {amend, here, href} from "../lib/router.js";
import {optional, useResource} from "../lib/resource.js";
import {can} from "../lib/session.js";
import {Action} from "../components/action.js";
import {Count, Empty, Heading, Loading, MessageLink, Problem, Table, Time} from "../components/basics.js";
import {Preview} from "../components/json-view.js";
import {LIMIT} from "../components/lists.js";
import {pageOf, Pager} from "../components/pager.js";
import {Redrives} from "../components/redrives.js";

const EVERY = 3000;

export default function DeadLettersOf({id, query}) {
  const [changes, setChanges] = useState(0);
  const changed = () => setChanges((one) => one + 1);
  const mayConsume = can("subscriptions:consume", id);
  const {data: reasons, error} = useResource((signal) => optional(get(at`/subscriptions/${id}/dlq/reasons`, {}, signal)), [id], {every: EVERY, version: changes});
  return html`
    <${Heading} above=${html`<a href="#/dead-letters">Dead letters</a>`} title=${id} isId>
      <a class="button" href=${href(["subscriptions", id])}>Open the subscription</a>
    <//>
    <${Problem} error=${error} />
    ${reasons === undefined && !error ? html`<${Loading} />` : null}
    ${reasons?.data.length ? html`<${Reasons} query=${query} reasons=${reasons.data} />` : null}
    ${reasons !== undefined && mayConsume
      ? html`<${Redrives} id=${id} reason=${query.reason} onProgress=${changed} />
          <${Letters} id=${id} query=${query} changes=${changes} onChange=${changed} />`
      : null}
    ${reasons?.data.length === 0 && !mayConsume ? html`<${NoLetters} />` : null}
  `;
}

function Reasons({query, reasons}) {
  return html`<${Table} label="Reasons" columns=${["Reason", {name: "Dead letters", class: "right"}, {name: "First", class: "fit secondary"}, {name: "Last", class: "fit"}]}>
    ${reasons.map((one) => html`<tr key=${one.reason}>
      <td class="reason"><a href=${here({reason: one.reason, page_token: undefined, offset: undefined})} aria-current=${query.reason === one.reason ? "true" : undefined}>${one.reason}</a></td>
      <td class="right"><${Count} value=${one.count} /></td>
      <td class="fit secondary"><${Time} at=${one.first_died_at} /></td>
      <td class="fit"><${Time} at=${one.last_died_at} relative /></td>
    </tr>`)}
  <//>`;
}

const NoLetters = ({reason}) => html`<${Empty} title="There are no dead letters${reason ? " of this reason" : ""}"><p>A message becomes one when a consumer rejects it, or when its last attempt fails.</p><//>`;

function Letters({id, query, changes, onChange}) {
  const [chosen, setChosen] = useState([]);
  const request = () => ({path: at`/subscriptions/${id}/dlq`, query: {limit: LIMIT, reason: query.reason, ...pageOf(query)}, exact: true});
  const {data, error} = useResource((signal) => send(request(), signal), [id, query.reason, query.page_token, query.offset], {version: changes});
  if (!data) return error ? html`<${Problem} error=${error} />` : html`<${Loading} />`;
  if (!data.data.length) return html`<${NoLetters} reason=${query.reason} />`;
  const ids = data.data.map((one) => one.id);
  const here_ = chosen.filter((one) => ids.includes(one));
  const done = () => (setChosen([]), onChange());
  return html`
    <div class="toolbar">
      <span class="muted">${query.reason ? html`Only “${query.reason}” · <button type="button" class="quiet" onClick=${() => amend({reason: undefined})}>show all</button>` : "All reasons"}</span>
      <span class="push toolbar">
        <span class="number muted" aria-live="polite">${here_.length} selected</span>
        <${Action} label="Reprocess selected" isDisabled=${!here_.length} request=${() => ({method: "POST", path: at`/subscriptions/${id}/dlq/reprocess`, body: here_})} done="Given to the consumers again." onDone=${done} />
        <${Action} label="Purge selected" kind="danger" isDisabled=${!here_.length} request=${() => ({method: "DELETE", path: at`/subscriptions/${id}/dlq`, body: here_})}
          ask=${{title: `Purge ${count(here_.length)} dead letters`, text: "They are deleted with their payloads. This cannot be undone.", name: id}} done="Purged." onDone=${done} />
      </span>
    </div>
    <${LetterTable} letters=${data.data} chosen=${here_} setChosen=${setChosen} />
    <${Pager} answer=${data} limit=${LIMIT} />
  `;
}

function LetterTable({letters, chosen, setChosen}) {
  const all = letters.map((one) => one.id);
  const toggle = (id) => setChosen(chosen.includes(id) ? chosen.filter((one) => one !== id) : [...chosen, id]);
  const whole = html`<input type="checkbox" aria-label="Select all on this page" checked=${chosen.length === all.length} onChange=${() => setChosen(chosen.length === all.length ? [] : all)} />`;
  return html`<${Table} label="Dead letters" columns=${[{name: whole, class: "fit"}, {name: "Died", class: "fit"}, {name: "Message", class: "fit"}, {name: "Attempts", class: "right secondary"}, "Reason", "Payload"]}>
    ${letters.map((one) => html`<tr key=${one.id}>
      <td class="fit"><input type="checkbox" aria-label=${`Select ${one.id}`} checked=${chosen.includes(one.id)} onChange=${() => toggle(one.id)} /></td>
      <td class="fit"><${Time} at=${one.died_at} /></td>
      <td class="fit"><${MessageLink} id=${one.id} /></td>
      <td class="right secondary">${count(one.delivery_attempts)}</td>
      <td class="reason">${one.reason}</td>
      <td class="payload"><${Preview} payload=${one.payload} /></td>
    </tr>`)}
  <//>`;
}
