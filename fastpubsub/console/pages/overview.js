// What is wrong first, then what flows.

import {html} from "../lib/ui.js";
import {get} from "../lib/api.js";
import {compact, rate} from "../lib/format.js";
import {href} from "../lib/router.js";
import {optional, useResource} from "../lib/resource.js";
import {can} from "../lib/session.js";
import {Empty, Heading, Loading, Problem, SubscriptionLink, Time, Told, TopicLink} from "../components/basics.js";
import {HistoryPlots, Ranges} from "../components/history.js";

const EVERY = 5000;

export default function Overview({query}) {
  const {data, error} = useResource((signal) => optional(get("/overview", {}, signal)), [], {every: EVERY});
  return html`
    <${Heading} title="Overview"><${Ranges} query=${query} /><//>
    <${Problem} error=${error}>The figures could not be read: <//>
    ${data === undefined && !error ? html`<${Loading} />` : null}
    ${data === null ? html`<${Empty} title="This server has no overview"><p>Look at the <a href="#/topics">topics</a> and <a href="#/subscriptions">subscriptions</a>.</p><//>` : null}
    ${data ? html`<${Everything} overview=${data} query=${query} />` : null}
  `;
}

function Everything({overview, query}) {
  if (!overview.topics && !overview.subscriptions) return html`<${First} />`;
  return html`
    <${Findings} findings=${overview.findings ?? []} />
    <${Tiles} overview=${overview} />
    <${HistoryPlots} path="/overview/history" query=${query} />
  `;
}

const Tile = ({label, value, hint, to, state = ""}) =>
  html`<a class=${`figure ${state}`} href=${to}><span class="label">${label}</span><strong>${value}</strong><small>${hint ?? ""}</small></a>`;

function Tiles({overview}) {
  const {rates = {}} = overview;
  const list = href(["subscriptions"]);
  return html`<section class="tiles" aria-label="Figures">
    <${Tile} label="Published" value=${rate(rates.published)} hint=${`${compact(overview.published)} in all`} to=${href(["topics"])} />
    <${Tile} label="Delivered" value=${rate(rates.delivered)} hint=${`${rate(rates.acked)} acked`} to=${list} />
    <${Tile} label="Ahead" value=${compact(overview.ahead)} hint="not delivered yet" to=${list} state="ahead" />
    <${Tile} label="Leased" value=${compact(overview.leased)} hint="with consumers" to=${list} state="leased" />
    <${Tile} label="Waiting" value=${compact(overview.waiting)} hint="for a retry" to=${list} state="waiting" />
    <${Tile} label="Dead letters" value=${compact(overview.dlq)} hint=${rates.dead_lettered ? `${rate(rates.dead_lettered)} more` : "kept until redriven"} to=${href(["dead-letters"])} state=${overview.dlq ? "dead" : ""} />
  </section>`;
}

const KINDS = {
  expired_leases: "Expired leases",
  backlog_grows: "Backlog grows",
  old_backlog: "Old backlog",
  old_lease: "Old lease",
  old_waiting: "Old retry",
  dead_letters: "Dead letters",
  pins_the_log: "Pins the log",
  held_snapshot: "Open transaction",
  consumers_silent: "Consumers silent",
  publishers_silent: "Publishers silent",
  paused: "Paused",
  at_limit: "At its limit",
};

function Findings({findings}) {
  if (!findings.length) return html`<p class="note">Nothing is wrong: no backlog grows, no lease is old, and nobody went silent.</p>`;
  return html`<section aria-label="What is wrong">
    <ul class="findings">${findings.map((one) => html`<${Finding} key=${`${one.kind} ${one.subscription_id} ${one.topic_id}`} finding=${one} />`)}</ul>
  </section>`;
}

function Finding({finding: {kind, severity, topic_id, subscription_id, detail, since}}) {
  const where = subscription_id
    ? kind === "dead_letters"
      ? html`<a class="id" href=${href(["dead-letters", subscription_id])}>${subscription_id}</a>`
      : html`<${SubscriptionLink} id=${subscription_id} />`
    : topic_id ? html`<${TopicLink} id=${topic_id} />` : null;
  return html`<li>
    <span class=${`state ${severity}`}>${KINDS[kind] ?? kind.replaceAll("_", " ")}</span>
    <span>${where} <${Told} text=${detail} /></span>
    <span class="muted secondary">${since ? html`<${Time} at=${since} relative />` : null}</span>
  </li>`;
}

const First = () => html`<${Empty} title="Nothing is here yet">
  <p>A topic takes messages. A subscription of it gets each message that is published from then on, and keeps it until a consumer has acknowledged it.</p>
  ${can("topics:create") ? html`<a class="button" href=${href(["topics"], {create: 1})}>Create a topic</a>` : html`<p>This client may not create topics.</p>`}
<//>`;
