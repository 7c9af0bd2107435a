import {html} from "../lib/ui.js";
import {at, get} from "../lib/api.js";
import {count, duration, rate} from "../lib/format.js";
import {go, here, href} from "../lib/router.js";
import {useResource} from "../lib/resource.js";
import {can} from "../lib/session.js";
import {Action} from "../components/action.js";
import {Facts, Heading, Loading, Problem, Tabs, Time, TopicLink} from "../components/basics.js";
import {Browse} from "../components/browse.js";
import {Consumers} from "../components/consumers.js";
import {FilterEditor} from "../components/filter-editor.js";
import {HistoryPlots, Ranges} from "../components/history.js";
import {oneOf} from "../components/lists.js";
import {countsOf, isEstimate, Meter} from "../components/meter.js";
import {Push} from "../components/push.js";
import {Seek} from "../components/seek.js";
import {SubscriptionSettings} from "../components/subscription-settings.js";

const EVERY = 3000;

const TABS = [
  ["messages", "Messages", () => true, ({subscription, query}) => html`<${Browse} subscription=${subscription} query=${query} />`],
  ["consumers", "Consumers", () => true, ({subscription, query}) => html`<${Consumers} id=${subscription.id} from=${query.from} />`],
  ["filter", "Filter", () => true, ({subscription, reload}) => html`<${FilterEditor} subscription=${subscription} onDone=${reload} />`],
  ["seek", "Seek", (id) => can("subscriptions:consume", id), ({subscription, reload}) => html`<${Seek} subscription=${subscription} onDone=${reload} />`],
  ["push", "Push", (id) => can("subscriptions:push", id), ({subscription, query}) => html`<${Push} subscription=${subscription} query=${query} />`],
  ["settings", "Settings", () => true, ({subscription, reload}) => html`<${SubscriptionSettings} subscription=${subscription} onDone=${reload} />`],
];
const PLACE = {q: undefined, from: undefined, state: undefined, page_token: undefined, offset: undefined};

async function load(id, signal) {
  const subscription = await oneOf(at`/subscriptions/${id}`, signal);
  return subscription.metrics ? subscription : {...subscription, metrics: await get(at`/subscriptions/${id}/metrics`, {}, signal)};
}

export default function Subscription({id, query}) {
  const {data: subscription, error, reload} = useResource((signal) => load(id, signal), [id], {every: EVERY});
  const tabs = TABS.filter(([, , isAllowed]) => isAllowed(id));
  const current = tabs.find(([name]) => name === query.tab) ?? tabs[0];
  return html`
    <${Heading} above=${html`<a href="#/subscriptions">Subscriptions</a>`} title=${id} isId>
      <${Ranges} query=${query} />
      ${subscription ? html`<${Actions} subscription=${subscription} reload=${reload} />` : null}
    <//>
    <${Problem} error=${error} />
    ${subscription
      ? html`<${Figures} subscription=${subscription} />
          <${HistoryPlots} path=${at`/subscriptions/${id}/history`} query=${query} />
          <${Tabs} label="Parts of the subscription" tabs=${tabs.map((tab) => [tab[1], here({...PLACE, tab: tab[0]}), tab === current])} />
          ${current[3]({subscription, query, reload})}`
      : error ? null : html`<${Loading} />`}
  `;
}

function Figures({subscription: {id, topic_id, metrics, filter, is_paused, paused_at, created_at}}) {
  const oldest = {ahead: metrics.oldest_ahead_seconds, leased: metrics.oldest_leased_seconds, waiting: metrics.oldest_waiting_seconds};
  const linkTo = (state) => (state === "dead" ? href(["dead-letters", id]) : here({...PLACE, tab: "messages", state}));
  return html`
    ${is_paused ? html`<p class="note"><span class="state paused">paused</span> Consumers get nothing${paused_at ? html` since <${Time} at=${paused_at} />` : null}. Messages are kept.</p>` : null}
    <${Meter} counts=${countsOf(metrics)} oldest=${oldest} isEstimated=${isEstimate(metrics)} linkTo=${linkTo} />
    <${Facts} facts=${[
      ["Topic", html`<${TopicLink} id=${topic_id} />`],
      ["Acked", html`<span class="number">${count(metrics.acked)}</span> <span class="muted">${metrics.rates ? `· ${rate(metrics.rates.acked)}` : ""}</span>`],
      ["Filtered out", metrics.filtered === undefined ? undefined : html`<a href=${here({...PLACE, tab: "filter"})}><span class="number">${count(metrics.filtered)}</span></a>`],
      ["Dropped", metrics.dropped ? html`<span class="number">${count(metrics.dropped)}</span>` : undefined],
      ["Expired", metrics.ttl_expired ? html`<span class="number">${count(metrics.ttl_expired)}</span>` : undefined],
      ["Held keys", metrics.held_keys ? html`<a href=${linkTo("dead")}><span class="number">${count(metrics.held_keys)}</span></a> <span class="muted">until their dead letters are reprocessed or purged</span>` : undefined],
      ["Filter", filter ? html`<code>${JSON.stringify(filter)}</code>` : "none: gets everything"],
      ["Created", html`<${Time} at=${created_at} />`],
    ]} />
  `;
}

function Actions({subscription: {id, is_paused}, reload}) {
  const mayChange = can("subscriptions:create", id);
  return html`
    ${mayChange && !is_paused ? html`<${Action} label="Pause" request=${() => ({method: "POST", path: at`/subscriptions/${id}/pause`})} done=${`Paused ${id}.`} onDone=${reload} />` : null}
    ${mayChange && is_paused ? html`<${Action} label="Resume" kind="primary" request=${() => ({method: "POST", path: at`/subscriptions/${id}/resume`})} done=${`Resumed ${id}.`} onDone=${reload} />` : null}
    ${can("subscriptions:delete", id)
      ? html`<${Action} label="Delete" kind="danger" request=${() => ({method: "DELETE", path: at`/subscriptions/${id}`})}
          ask=${{title: `Delete ${id}`, text: "The subscription, what it has not delivered yet and its dead letters are deleted. This cannot be undone.", name: id}}
          done=${`Deleted ${id}.`} onDone=${() => go("#/subscriptions")} />`
      : null}
  `;
}
