// Subscriptions with dead letters, those of a page with the most first.

import {html} from "../lib/ui.js";
import {get} from "../lib/api.js";
import {href} from "../lib/router.js";
import {useResource} from "../lib/resource.js";
import {Count, Empty, Heading, Loading, Problem, Table, TopicLink} from "../components/basics.js";
import {pageOf, Pager} from "../components/pager.js";

const LIMIT = 100;
const EVERY = 5000;
const COLUMNS = ["Subscription", {name: "Topic", class: "secondary"}, {name: "Dead letters", class: "right"}];

export default function DeadLetters({query}) {
  const load = (signal) => get("/subscriptions", {limit: LIMIT, include: "metrics", has_dead_letters: true, ...pageOf(query)}, signal);
  const {data, error} = useResource(load, [query.page_token, query.offset], {every: EVERY});
  return html`
    <${Heading} title="Dead letters" />
    <${Problem} error=${error} />
    ${data ? html`<${List} answer=${data} />` : error ? null : html`<${Loading} />`}
    ${data ? html`<${Pager} answer=${data} limit=${LIMIT} />` : null}
  `;
}

const List = ({answer}) => answer.data.length
  ? html`<${Table} label="Subscriptions with dead letters" columns=${COLUMNS}>
      ${answer.data.toSorted((one, other) => other.metrics.dlq - one.metrics.dlq).map(({id, topic_id, metrics}) => html`<tr key=${id}><td><a class="id" href=${href(["dead-letters", id])}>${id}</a></td><td class="secondary"><${TopicLink} id=${topic_id} /></td><td class="right"><${Count} value=${metrics.dlq} /></td></tr>`)}
    <//>`
  : html`<${Empty} title="There are no dead letters"><p>A message becomes one when a consumer rejects it, or when its last attempt fails. It keeps its payload and the reason until it is redriven or purged.</p><//>`;
