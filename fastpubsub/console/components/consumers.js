// Who holds messages or waits for some, in every process of the server.

import {html} from "../lib/ui.js";
import {at, curl, get} from "../lib/api.js";
import {plural} from "../lib/format.js";
import {here} from "../lib/router.js";
import {optional, useResource} from "../lib/resource.js";
import {Count, Empty, Loading, Problem, Table, Time} from "./basics.js";

const EVERY = 3000;

const pull = (id) => ({path: at`/subscriptions/${id}/messages`, query: {consumer_id: "me", wait_seconds: 20}});

export function Consumers({id, from}) {
  const {data, error} = useResource((signal) => optional(get(at`/subscriptions/${id}/consumers`, {page_token: from}, signal)), [id, from], {every: EVERY});
  if (data === null) return html`<${Empty} title="This server does not tell its consumers"><//>`;
  if (!data) return error ? html`<${Problem} error=${error} />` : html`<${Loading} />`;
  if (!data.data.length) {
    return html`<${Empty} title="No consumer is here"><p>Nobody holds a message or waits for one. A consumer pulls:</p><pre tabindex="0">${curl(pull(id))}</pre><//>`;
  }
  return html`<${Table} label="Consumers" columns=${["Consumer", {name: "Holds", class: "right"}, {name: "Oldest lease", class: "fit"}, {name: "Waits", class: "fit"}, {name: "Since", class: "fit"}, {name: "Last seen", class: "fit"}]}>
    ${data.data.map((one) => html`<tr key=${one.consumer_id}>
      <td class="id">${one.consumer_id}</td>
      <td class="right"><${Count} value=${one.leased} /></td>
      <td class="fit"><${Time} at=${one.oldest_leased_at} relative /></td>
      <td class="fit">${waits(one)}</td>
      <td class="fit"><${Time} at=${one.waits_since} relative /></td>
      <td class="fit"><${Time} at=${one.seen_at} relative /></td>
    </tr>`)}
  <//>
  ${from || data.next_page_token
    ? html`<nav class="pager" aria-label="Pages">
        ${from ? html`<a href=${here({from: undefined})}>First</a>` : null}
        ${data.next_page_token ? html`<a href=${here({from: data.next_page_token})}>Next</a>` : html`<span class="muted">That is all.</span>`}
      </nav>`
    : null}`;
}

function waits({pulls, streams}) {
  const kinds = [pulls && plural(pulls, "pull"), streams && plural(streams, "stream")].filter(Boolean);
  return kinds.length ? kinds.join(", ") : "–";
}
