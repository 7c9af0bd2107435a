import {html, useState} from "../lib/ui.js";
import {duration, rate} from "../lib/format.js";
import {amend, go, href} from "../lib/router.js";
import {useResource} from "../lib/resource.js";
import {can} from "../lib/session.js";
import {Action} from "../components/action.js";
import {Count, Dialog, Empty, Field, Heading, Loading, Problem, Table, Time, TopicLink} from "../components/basics.js";
import {LIMIT, listed} from "../components/lists.js";
import {Pager} from "../components/pager.js";
import {Search} from "../components/search.js";
import {objectOrNull, wholeOrNull} from "../components/forms.js";

const EVERY = 5000;

export default function Topics({query}) {
  const {data, error} = useResource((signal) => listed("/topics", query, {}, signal), [query.q, query.page_token, query.offset], {every: EVERY});
  return html`
    <${Heading} title="Topics">
      ${can("topics:create") ? html`<button type="button" class="primary" onClick=${() => amend({create: 1})}>New topic</button>` : null}
    <//>
    <div class="toolbar"><${Search} label="Find by id" /></div>
    <${Problem} error=${error} />
    ${data ? html`<${List} answer=${data} query=${query} />` : error ? null : html`<${Loading} />`}
    ${query.create && can("topics:create") ? html`<${NewTopic} onClose=${() => amend({create: undefined})} />` : null}
  `;
}

function List({answer, query}) {
  if (!answer.data.length && query.q) return html`<${Empty} title="No topic has this in its id"><p>Ids are searched without regard to case.</p><//>`;
  if (!answer.data.length) return html`<${Empty} title="There are no topics"><p>A topic takes messages and hands them to its subscriptions. Create one, then a subscription, then publish.</p><//>`;
  const has = answer.data[0].metrics !== undefined;
  const columns = ["Topic", ...(has ? [{name: "Rate", class: "right"}, {name: "Kept", class: "right"}, {name: "Subscriptions", class: "right secondary"}, {name: "Published", class: "right secondary"}] : []), {name: "Retention", class: "right secondary"}, {name: "Created", class: "secondary"}];
  return html`
    <${Table} label="Topics" columns=${columns}>${answer.data.map((topic) => html`<${Row} key=${topic.id} topic=${topic} />`)}<//>
    <${Pager} answer=${answer} limit=${LIMIT} />
  `;
}

const Row = ({topic: {id, metrics, retention_seconds, created_at}}) => html`<tr>
  <td><${TopicLink} id=${id} /></td>
  ${metrics
    ? html`<td class="right">${rate(metrics.rates?.published)}</td><td class="right"><${Count} value=${metrics.kept} /></td>
        <td class="right secondary"><${Count} value=${metrics.subscriptions} /></td><td class="right secondary"><${Count} value=${metrics.published} /></td>`
    : null}
  <td class="right secondary">${retention_seconds === null ? html`<span class="muted">default</span>` : duration(retention_seconds)}</td>
  <td class="secondary"><${Time} at=${created_at} /></td>
</tr>`;

function NewTopic({onClose}) {
  const [id, setId] = useState("");
  const [retention, setRetention] = useState("");
  const [schema, setSchema] = useState("");
  const request = () => ({
    method: "POST",
    path: "/topics",
    body: {id, retention_seconds: wholeOrNull(retention, "Retention"), schema: objectOrNull(schema, "The schema")},
  });
  return html`<${Dialog} title="New topic" onClose=${onClose}>
    <div class="form">
      <${Field} label="Id" hint="Letters, digits, dots, hyphens and underscores"><input value=${id} onInput=${(event) => setId(event.target.value)} autocomplete="off" spellcheck=${false} /><//>
      <${Field} label="Retention in seconds" hint="How long settled messages stay for replay; empty: the server's setting"><input inputmode="numeric" value=${retention} onInput=${(event) => setRetention(event.target.value)} /><//>
      <${Field} isWide label="JSON Schema" hint="Every payload must match it; empty: anything"><textarea value=${schema} onInput=${(event) => setSchema(event.target.value)} spellcheck=${false}></textarea><//>
      <footer><${Action} kind="primary" label="Create topic" request=${request} done=${`Created ${id}.`} onDone=${() => go(href(["topics", id], {tab: "publish"}))} /></footer>
    </div>
  <//>`;
}
