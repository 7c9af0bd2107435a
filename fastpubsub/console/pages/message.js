// A message, and what became of it in every subscription of its topic.

import {html} from "../lib/ui.js";
import {at, sendForText} from "../lib/api.js";
import {count} from "../lib/format.js";
import {parse, rawMember} from "../lib/json.js";
import {here, href} from "../lib/router.js";
import {useResource} from "../lib/resource.js";
import {can} from "../lib/session.js";
import {copy, Curl} from "../components/action.js";
import {Empty, Facts, Heading, Loading, Problem, State, SubscriptionLink, Table, Time, Told, TopicLink} from "../components/basics.js";
import {Why} from "../components/filter-editor.js";
import {JsonView} from "../components/json-view.js";

const LIMIT = 50;
const EVERY = 3000;

export default function Message({id, query}) {
  const offset = Number(query.offset ?? 0);
  const request = () => ({path: at`/messages/${id}`, query: {limit: LIMIT, offset: offset || undefined}});
  const load = async (signal) => {
    const text = await sendForText(request(), signal);
    return {...parse(text), raw: rawMember(text, "payload")};
  };
  const {data: message, error} = useResource(load, [id, offset], {every: EVERY});
  return html`
    <${Heading} above="Message" title=${id} isId>
      <button type="button" class="quiet" onClick=${() => copy(location.href, "the link")}>Copy link</button>
      <${Curl} request=${request} />
      ${message && can("topics:publish", message.topic_id) && message.payload !== undefined
        ? html`<a class="button" href=${href(["topics", message.topic_id], {tab: "publish", template: id})}>Edit and publish</a>`
        : null}
    <//>
    <${Problem} error=${error} />
    ${message ? html`<${Whole} message=${message} offset=${offset} />` : error ? html`<${Empty} title="What became of it cannot be said"><p>Messages are kept until every subscription is done with them, and for the retention of their topic.</p><//>` : html`<${Loading} />`}
  `;
}

const Whole = ({message, offset}) => html`
  <${Facts} facts=${[["Topic", html`<${TopicLink} id=${message.topic_id} />`], ["Published", html`<${Time} at=${message.created_at} /> <span class="muted">· <${Time} at=${message.created_at} relative /></span>`], ["Expires", message.expires_at ? html`<${Time} at=${message.expires_at} />` : undefined]]} />
  <section aria-label="Subscriptions"><${Fates} explained=${message.subscriptions} /></section>
  <${Failures} explained=${message.subscriptions} />
  ${offset || message.subscriptions.length === LIMIT
    ? html`<nav class="pager" aria-label="Pages">${offset ? html`<a href=${here({offset: Math.max(offset - LIMIT, 0)})}>Previous</a>` : null}${message.subscriptions.length === LIMIT ? html`<a href=${here({offset: offset + LIMIT})}>Next</a>` : null}</nav>`
    : null}
  <div class="columns">
    <div class="card">${message.payload === undefined
      ? html`<p class="muted">${can("messages:read", message.topic_id) ? "The payload is no longer kept." : "To see the payload needs the scope messages:read for this topic."}</p>`
      : html`<${JsonView} value=${message.payload} raw=${message.raw} />`}</div>
    ${message.attributes ? html`<div class="card"><h2>Attributes</h2><${Attributes} attributes=${message.attributes} /></div>` : null}
  </div>
`;

function Failures({explained}) {
  const failed = explained.flatMap((one) => (one.failures ?? []).map((failure) => ({...failure, subscription_id: one.subscription_id})));
  if (!failed.length) return null;
  return html`<section aria-label="Failures">
    <h2>Failed deliveries</h2>
    <${Table} label="Failed deliveries" columns=${["Subscription", {name: "Attempt", class: "right"}, {name: "Failed", class: "fit"}, {name: "Consumer", class: "fit secondary"}, {name: "How", class: "fit"}, "Reason"]}>
      ${failed.map((one, place) => html`<tr key=${place}>
        <td><${SubscriptionLink} id=${one.subscription_id} /></td>
        <td class="right">${count(one.delivery_attempt)}</td>
        <td class="fit"><${Time} at=${one.failed_at} /></td>
        <td class="fit secondary"><span class="id">${one.consumer_id}</span></td>
        <td class="fit">${one.cause}</td>
        <td class="reason">${one.reason}</td>
      </tr>`)}
    <//>
  </section>`;
}

const Attributes = ({attributes}) => html`<${Table} label="Attributes" columns=${[{name: "Name", class: "fit"}, "Value"]}>
  ${Object.entries(attributes).map(([name, value]) => html`<tr key=${name}><td class="fit id">${name}</td><td class="id">${value}</td></tr>`)}
<//>`;

function Fates({explained}) {
  if (!explained.length) return html`<${Empty} title="No subscription gets it"><p>The topic has no subscription, or the scopes of this client do not show one.</p><//>`;
  return html`<${Table} label="What became of it" columns=${["Subscription", {name: "State", class: "fit"}, "Why", {name: "Attempts", class: "right secondary"}]}>
    ${explained.map((one) => html`<tr key=${one.subscription_id}>
      <td><${SubscriptionLink} id=${one.subscription_id} query=${one.state === "filtered" ? {tab: "filter"} : {}} /></td>
      <td class="fit"><${State} state=${one.state} /></td>
      <td>${one.state === "filtered" && one.field !== undefined ? html`<${Why} verdict=${one} />` : html`<${Told} text=${one.detail} />`}</td>
      <td class="right secondary">${count(one.delivery_attempts)}</td>
    </tr>`)}
  <//>`;
}
