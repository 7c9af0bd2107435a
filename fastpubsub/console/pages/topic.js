import {html} from "../lib/ui.js";
import {at} from "../lib/api.js";
import {count, duration, rate} from "../lib/format.js";
import {go, here, href} from "../lib/router.js";
import {useResource} from "../lib/resource.js";
import {can} from "../lib/session.js";
import {Action} from "../components/action.js";
import {Facts, Heading, Loading, Problem, Tabs, Time} from "../components/basics.js";
import {HistoryPlots, Ranges} from "../components/history.js";
import {oneOf} from "../components/lists.js";
import {LiveTail} from "../components/live-tail.js";
import {Publish} from "../components/publish.js";
import {RefusedMessages} from "../components/refused-messages.js";
import {Schedules} from "../components/schedules.js";
import {TopicMessages} from "../components/topic-messages.js";
import {TopicSettings} from "../components/topic-settings.js";
import {SubscriptionList} from "./subscriptions.js";

const EVERY = 5000;

const TABS = [
  ["messages", "Messages", () => true, ({topic, query}) => html`<${TopicMessages} id=${topic.id} query=${query} />`],
  ["live", "Live", (id) => can("topics:consume", id), ({topic}) => html`<${LiveTail} id=${topic.id} />`],
  ["publish", "Publish", (id) => can("topics:publish", id), ({topic, query}) => html`<${Publish} topic=${topic} template=${query.template} />`],
  ["subscriptions", "Subscriptions", () => can("subscriptions:read"), ({topic, query}) => html`<${OfTopic} topic=${topic} query=${query} />`],
  ["schedules", "Schedules", () => true, ({topic, query}) => html`<${Schedules} id=${topic.id} query=${query} />`],
  ["refused", "Refused", () => true, ({topic, query}) => html`<${RefusedMessages} topic=${topic} query=${query} />`],
  ["settings", "Settings", () => true, ({topic, reload}) => html`<${TopicSettings} topic=${topic} onDone=${reload} />`],
];

export default function Topic({id, query}) {
  const {data: topic, error, reload} = useResource((signal) => oneOf(at`/topics/${id}`, signal), [id], {every: EVERY});
  const tabs = TABS.filter(([, , isAllowed]) => isAllowed(id));
  const current = tabs.find(([name]) => name === query.tab) ?? tabs[0];
  return html`
    <${Heading} above=${html`<a href="#/topics">Topics</a>`} title=${id} isId>
      <${Ranges} query=${query} />
      ${can("topics:delete", id) ? html`<${Delete} id=${id} />` : null}
    <//>
    <${Problem} error=${error} />
    ${topic ? html`<${Figures} topic=${topic} />` : error ? null : html`<${Loading} />`}
    ${topic ? html`<${HistoryPlots} path=${at`/topics/${id}/history`} query=${query} />` : null}
    ${topic
      ? html`<${Tabs} label="Parts of the topic" tabs=${tabs.map((tab) => [tab[1], here({tab: tab[0], q: undefined, from: undefined, before: undefined, page_token: undefined, offset: undefined}), tab === current])} />
          ${current[3]({topic, query, reload})}`
      : null}
  `;
}

const Figures = ({topic: {metrics, created_at, retention_seconds, schema}}) => html`<${Facts} facts=${[
  ["Published", metrics && html`<span class="number">${count(metrics.published)}</span> <span class="muted">· ${rate(metrics.rates?.published)}</span>`],
  ["Kept", metrics && html`<span class="number">${count(metrics.kept)}</span>`],
  ...(metrics?.refused ? [["Refused", html`<a class="number" href=${here({tab: "refused"})}>${count(metrics.refused)}</a>`]] : []),
  ["Retention", retention_seconds === null ? "the server's setting" : duration(retention_seconds)],
  ["Schema", schema === null ? "none" : html`<a href=${here({tab: "settings"})}>yes</a>`],
  ["Created", html`<${Time} at=${created_at} />`],
]} />`;

const OfTopic = ({topic, query}) => html`
  ${can("subscriptions:create") ? html`<div class="toolbar"><a class="button push" href=${href(["subscriptions"], {create: 1, topic: topic.id})}>New subscription of ${topic.id}</a></div>` : null}
  <${SubscriptionList} query=${query} topicId=${topic.id} />
`;

const Delete = ({id}) => html`<${Action}
  label="Delete" kind="danger"
  request=${() => ({method: "DELETE", path: at`/topics/${id}`})}
  ask=${{title: `Delete ${id}`, text: "The topic, its subscriptions and every message in them are deleted. This cannot be undone.", name: id}}
  done=${`Deleted ${id}.`} onDone=${() => go("#/topics")}
/>`;
