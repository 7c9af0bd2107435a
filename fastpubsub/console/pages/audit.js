// Who changed what, newest first.

import {html} from "../lib/ui.js";
import {get} from "../lib/api.js";
import {oneLine} from "../lib/json.js";
import {here, href} from "../lib/router.js";
import {optional, useResource} from "../lib/resource.js";
import {Empty, Heading, Loading, Problem, Table, Time} from "../components/basics.js";
import {LIMIT} from "../components/lists.js";
import {pageOf, Pager} from "../components/pager.js";
import {Search} from "../components/search.js";

const KINDS = {"": "All", topic: "Topics", subscription: "Subscriptions", client: "Clients"};

export default function Audit({query}) {
  const {object, object_id, client_id} = query;
  const load = (signal) => optional(get("/audit", {object, object_id, client_id, limit: LIMIT, ...pageOf(query)}, signal));
  const {data, error} = useResource(load, [object, object_id, client_id, query.page_token]);
  return html`
    <${Heading} title="Audit" />
    <div class="toolbar">
      <nav class="tabs small" aria-label="Kind of object">
        ${Object.entries(KINDS).map(([kind, label]) => html`<a key=${kind} href=${here({object: kind, page_token: undefined})} aria-current=${kind === (object ?? "") ? "page" : undefined}>${label}</a>`)}
      </nav>
      <${Search} name="object_id" label="Of this id exactly" />
      ${client_id ? html`<a href=${here({client_id: undefined})}>By every client</a>` : null}
    </div>
    <${Problem} error=${error} />
    ${data === null ? html`<${Empty} title="This server keeps no audit"><//>` : data ? html`<${Entries} answer=${data} />` : error ? null : html`<${Loading} />`}
  `;
}

function Entries({answer}) {
  if (!answer.data.length) return html`<${Empty} title="Nothing was changed"><p>What is created, changed, deleted, sought, purged or redriven is noted here, with the client and the request. Notes are kept for 90 days unless the server is told otherwise.</p><//>`;
  return html`
    <${Table} label="Changes" columns=${[{name: "When", class: "fit"}, {name: "Action", class: "fit"}, "Object", "Details", {name: "Client", class: "fit"}, {name: "Request", class: "fit secondary"}]}>
      ${answer.data.map((one) => html`<tr key=${`${one.at} ${one.request_id} ${one.object_id}`}>
        <td class="fit"><${Time} at=${one.at} /></td>
        <td class="fit">${one.action.replaceAll("_", " ")}</td>
        <td><span class="muted">${one.object}</span> <${ObjectLink} ...${one} /></td>
        <td class="most">${one.details ? html`<code class="details">${oneLine(one.details)}</code>` : null}</td>
        <td class="fit">${one.client_id ? html`<a class="id" href=${here({client_id: one.client_id, page_token: undefined})} title=${one.client_id}>${one.client_id.slice(0, 13)}</a>` : "–"}</td>
        <td class="fit id secondary" title=${one.request_id}>${one.request_id?.slice(0, 12)}</td>
      </tr>`)}
    <//>
    <${Pager} answer=${answer} limit=${LIMIT} />
  `;
}

const PLACES = {topic: "topics", subscription: "subscriptions", client: "clients"};
const ObjectLink = ({object, object_id}) =>
  PLACES[object] && object_id
    ? html`<a class="id" href=${href([PLACES[object], object_id])} title=${object_id}>${object === "client" ? object_id.slice(0, 13) : object_id}</a>`
    : html`<span class="id">${object_id}</span>`;
