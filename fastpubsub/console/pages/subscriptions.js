import {html, useState} from "../lib/ui.js";
import {duration, rate} from "../lib/format.js";
import {amend, go, href} from "../lib/router.js";
import {useResource} from "../lib/resource.js";
import {can} from "../lib/session.js";
import {Action} from "../components/action.js";
import {Count, Dialog, Empty, Field, Heading, Loading, Problem, SubscriptionLink, Table, Time, TopicLink} from "../components/basics.js";
import {LIMIT, listed} from "../components/lists.js";
import {countsOf, isEstimate} from "../components/meter.js";
import {Pager} from "../components/pager.js";
import {Search} from "../components/search.js";
import {objectOrNull} from "../components/forms.js";

const EVERY = 5000;

export default function Subscriptions({query}) {
  return html`
    <${Heading} title="Subscriptions">
      ${can("subscriptions:create") ? html`<button type="button" class="primary" onClick=${() => amend({create: 1})}>New subscription</button>` : null}
    <//>
    <div class="toolbar"><${Search} label="Find by id" /></div>
    <${SubscriptionList} query=${query} />
    ${query.create && can("subscriptions:create") ? html`<${NewSubscription} topicId=${query.topic ?? ""} onClose=${() => amend({create: undefined, topic: undefined})} />` : null}
  `;
}

/** Of all topics, or of one. */
export function SubscriptionList({query, topicId}) {
  const load = (signal) => listed("/subscriptions", query, {topic_id: topicId}, signal);
  const {data, error} = useResource(load, [query.q, query.page_token, query.offset, topicId], {every: EVERY});
  if (!data) return error ? html`<${Problem} error=${error} />` : html`<${Loading} />`;
  if (!data.data.length) return html`<${None} q=${query.q} />`;
  const has = data.data[0].metrics !== undefined;
  const figures = has ? [{name: "Ahead", class: "right"}, {name: "Oldest", class: "right secondary"}, {name: "Leased", class: "right secondary"}, {name: "Waiting", class: "right secondary"}, {name: "Dead", class: "right"}, {name: "Acked", class: "right secondary"}] : [];
  const columns = ["Subscription", ...(topicId ? [] : [{name: "Topic", class: "secondary"}]), ...figures, ...(has ? [] : [{name: "Created", class: "secondary"}])];
  return html`
    <${Problem} error=${error} />
    <${Table} label="Subscriptions" columns=${columns}>
      ${data.data.map((one) => html`<${Row} key=${one.id} subscription=${one} isOfTopic=${topicId !== undefined} />`)}
    <//>
    <${Pager} answer=${data} limit=${LIMIT} />
  `;
}

const None = ({q}) => q
  ? html`<${Empty} title="No subscription has this in its id"><p>Ids are searched without regard to case.</p><//>`
  : html`<${Empty} title="There are no subscriptions"><p>A subscription gets each message that is published to its topic after it was created. Without one, messages are kept and nobody gets them.</p><//>`;

function Row({subscription: {id, topic_id, filter, metrics, is_paused, created_at}, isOfTopic}) {
  const name = html`<td><${SubscriptionLink} id=${id} /> ${filter ? html`<span class="state" title=${JSON.stringify(filter)}>filter</span>` : null} ${is_paused ? html`<span class="state paused">paused</span>` : null}</td>`;
  const topic = isOfTopic ? null : html`<td class="secondary"><${TopicLink} id=${topic_id} /></td>`;
  if (!metrics) return html`<tr>${name}${topic}<td class="secondary"><${Time} at=${created_at} /></td></tr>`;
  const counts = countsOf(metrics);
  return html`<tr>${name}${topic}
    <td class="right"><${Count} value=${counts.ahead} isEstimated=${isEstimate(metrics)} /></td>
    <td class="right secondary">${metrics.oldest_ahead_seconds === null ? "–" : duration(metrics.oldest_ahead_seconds)}</td>
    <td class="right secondary"><${Count} value=${counts.leased} /></td>
    <td class="right secondary"><${Count} value=${counts.waiting} /></td>
    <td class="right">${counts.dead ? html`<a href=${href(["dead-letters", id])}><${Count} value=${counts.dead} /></a>` : "0"}</td>
    <td class="right secondary">${rate(metrics.rates?.acked)}</td>
  </tr>`;
}

function NewSubscription({topicId, onClose}) {
  const [id, setId] = useState("");
  const [topic, setTopic] = useState(topicId);
  const [filter, setFilter] = useState("");
  const [start, setStart] = useState("latest");
  const request = () => ({
    method: "POST",
    path: "/subscriptions",
    body: {id, topic_id: topic, filter: objectOrNull(filter, "The filter"), start_from: start},
  });
  return html`<${Dialog} title="New subscription" onClose=${onClose}>
    <div class="form">
      <${Field} label="Id"><input value=${id} onInput=${(event) => setId(event.target.value)} autocomplete="off" spellcheck=${false} /><//>
      <${Field} label="Topic"><input value=${topic} onInput=${(event) => setTopic(event.target.value)} autocomplete="off" spellcheck=${false} /><//>
      <${Field} label="Start from"><select value=${start} onChange=${(event) => setStart(event.target.value)}><option value="latest">what is published from now on</option><option value="earliest">the oldest message that is kept</option></select><//>
      <${Field} isWide label="Filter" hint=${html`Each field must have one of its values, such as <code>{"country": ["BR", "US"]}</code>; empty: everything`}>
        <textarea value=${filter} onInput=${(event) => setFilter(event.target.value)} spellcheck=${false}></textarea>
      <//>
      <footer><${Action} kind="primary" label="Create subscription" request=${request} done=${`Created ${id}.`} onDone=${() => go(href(["subscriptions", id]))} /></footer>
    </div>
  <//>`;
}
