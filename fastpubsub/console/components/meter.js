// The four counts of a subscription, which add up to everything that is not done.

import {html} from "../lib/ui.js";
import {here} from "../lib/router.js";
import {count, duration, plural} from "../lib/format.js";

const PARTS = [
  ["ahead", "Ahead", "not delivered yet"],
  ["leased", "Leased", "with consumers"],
  ["waiting", "Waiting", "for a retry"],
  ["dead", "Dead", "letters"],
];

/** Of the metrics: {ahead, leased, waiting, dead}. Older servers do not tell ahead and waiting apart. */
export function countsOf(metrics) {
  const waiting = metrics.waiting ?? 0;
  return {
    ahead: metrics.ahead ?? metrics.available - waiting,
    leased: metrics.leased ?? metrics.delivered,
    waiting,
    dead: metrics.dlq,
  };
}

export const isEstimate = (metrics) => Boolean(metrics.ahead_is_estimated ?? metrics.estimated);

export function Meter({counts, oldest = {}, isEstimated, linkTo = (state) => here({tab: "messages", state})}) {
  const all = Object.values(counts).reduce((sum, one) => sum + one, 0);
  const grown = (part) => (element) => element && (element.style.flexGrow = String(counts[part]));
  return html`<section class="meter" aria-label="Messages that are not done">
    <div class="bar" aria-hidden="true">${PARTS.map(([part]) => html`<span key=${part} class=${part} ref=${grown(part)}></span>`)}</div>
    <ul>
      ${PARTS.map(([part, name, hint]) => html`<li key=${part}><a class=${`figure ${part}`} href=${linkTo(part)}>
        <span class="label">${name}</span>
        <strong class="number">${part === "ahead" && isEstimated ? "~" : ""}${count(counts[part])}</strong>
        <small>${oldest[part] === undefined || oldest[part] === null ? hint : `oldest ${duration(oldest[part])}`}</small>
      </a></li>`)}
      <li><div class="figure sum"><span class="label">Not done</span><strong class="number">= ${count(all)}</strong><small>${plural(all, "message")} in all</small></div></li>
    </ul>
  </section>`;
}
