// The log of a topic: the newest messages, or those around a place, and a search within it.

import {html} from "../lib/ui.js";
import {at, send} from "../lib/api.js";
import {plural} from "../lib/format.js";
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

export function TopicMessages({id, query: {q, from, before}}) {
  const isNewest = !from && !before;
  const request = () => ({path: at`/topics/${id}/messages`, query: {q, from, before, limit: LIMIT}, exact: true});
  const {data, error} = useResource((signal) => optional(send(request(), signal)), [id, q, from, before], {every: isNewest ? EVERY : 0});
  if (data === null) return html`<${Empty} title="This server cannot browse topics"><p>Follow the topic <a href=${here({tab: "live"})}>live</a>.</p><//>`;
  return html`
    <div class="toolbar">
      ${can("messages:read", id) ? html`<${Search} label="Search payloads and attributes" placeholder="text, payload.field=value, attributes.name=value" />` : null}
      <span class="muted push">Looked at ${data ? plural(data.looked_at, "message") : "…"}</span>
      <${Curl} request=${request} />
    </div>
    <${Problem} error=${error} />
    ${data ? html`<${Page} answer=${data} q=${q} isNewest=${isNewest} />` : error ? null : html`<${Loading} />`}
  `;
}

function Page({answer, q, isNewest}) {
  const newestFirst = [...answer.data].reverse();
  return html`
    ${answer.data.length ? html`<${MessageTable} messages=${newestFirst} />` : html`<${None} q=${q} answer=${answer} />`}
    <nav class="pager" aria-label="Places in the topic">
      ${isNewest ? null : html`<a href=${here({from: undefined, before: undefined})}>Newest</a>`}
      ${answer.next && !isNewest ? html`<a href=${here({from: answer.next, before: undefined})}>Newer</a>` : null}
      ${answer.previous ? html`<a href=${here({before: answer.previous, from: undefined})}>${q ? "Search older messages" : "Older"}</a>` : html`<span class="muted">The oldest message is above.</span>`}
    </nav>
  `;
}

const None = ({q, answer}) => q
  ? html`<${Empty} title="Nothing was found here"><p>${plural(answer.looked_at, "message was", "messages were")} looked at. ${answer.previous ? "There are older ones." : "There are no older ones."}</p><//>`
  : html`<${Empty} title="The topic is empty"><p>Messages stay until every subscription is done with them, and for the retention of the topic. <a href=${here({tab: "publish"})}>Publish one</a>.</p><//>`;

const COLUMNS = [{name: "Published", class: "fit"}, {name: "Message", class: "fit"}, "Payload"];

/** The rows have their places for keys: what is new changes their texts, and moves nothing. */
export function MessageTable({messages}) {
  const [shown, holds] = useHeld(messages);
  return html`<${Table} label="Messages" columns=${COLUMNS} ...${holds}>
    ${shown.map((one, place) => html`<tr key=${place}>
      <td class="fit"><${Time} at=${one.created_at} /></td>
      <td class="fit"><${MessageLink} id=${one.id} /></td>
      <td class="payload"><${Preview} payload=${one.payload} /></td>
    </tr>`)}
  <//>`;
}
