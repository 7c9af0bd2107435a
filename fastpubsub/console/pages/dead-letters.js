// Subscriptions with dead letters.

import {html} from "../lib/ui.js";
import {get} from "../lib/api.js";
import {href} from "../lib/router.js";
import {useResource} from "../lib/resource.js";
import {Count, Empty, Heading, Loading, Problem, Table, TopicLink} from "../components/basics.js";

const PAGE = 100;
const MOST_PAGES = 100;

/** The server has no list of these alone: pages of figures are read, as they are cheap. */
async function load(signal) {
  const found = [];
  let page_token;
  for (let page = 0; page < MOST_PAGES; page += 1) {
    const answer = await get("/subscriptions", {limit: PAGE, include: "metrics", page_token}, signal);
    found.push(...answer.data.filter(({metrics}) => metrics.dlq > 0));
    page_token = answer.next_page_token;
    if (!page_token) break;
  }
  return found.sort((one, other) => other.metrics.dlq - one.metrics.dlq);
}

export default function DeadLetters() {
  const {data, error} = useResource(load, []);
  return html`
    <${Heading} title="Dead letters" />
    <${Problem} error=${error} />
    ${data ? html`<${List} found=${data} />` : error ? null : html`<${Loading} />`}
  `;
}

const List = ({found}) => found.length
  ? html`<${Table} label="Subscriptions with dead letters" columns=${["Subscription", {name: "Topic", class: "secondary"}, {name: "Dead letters", class: "right"}]}>
      ${found.map(({id, topic_id, metrics}) => html`<tr key=${id}><td><a class="id" href=${href(["dead-letters", id])}>${id}</a></td><td class="secondary"><${TopicLink} id=${topic_id} /></td><td class="right"><${Count} value=${metrics.dlq} /></td></tr>`)}
    <//>`
  : html`<${Empty} title="There are no dead letters"><p>A message becomes one when a consumer rejects it, or when its last attempt fails. It keeps its payload and the reason until it is redriven or purged.</p><//>`;
