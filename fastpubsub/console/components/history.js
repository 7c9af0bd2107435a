// The plots of an object: what comes, what goes, and what goes wrong.

import {html} from "../lib/ui.js";
import {get} from "../lib/api.js";
import {here} from "../lib/router.js";
import {optional, useResource} from "../lib/resource.js";
import {Plot} from "./plot.js";

const RANGES = {"15m": [900, 5], "1h": [3600, 5], "24h": [86400, 60]};
const FLOW = [["published", "published", "--plot-1"], ["delivered", "delivered", "--plot-3"], ["acked", "acked", "--plot-2"]];
const TROUBLE = [
  ["nacked", "nacked", "--plot-4"],
  ["rejected", "rejected", "--plot-3"],
  ["expired", "expired", "--plot-1"],
  ["dead_lettered", "dead", "--plot-5"],
  ["filtered", "filtered", "--plot-6"],
];

const chosen = (query) => (query.range in RANGES ? query.range : "15m");

export const Ranges = ({query}) =>
  html`<nav class="tabs small" aria-label="Time shown">
    ${Object.keys(RANGES).map((name) => html`<a key=${name} href=${here({range: name})} aria-current=${chosen(query) === name ? "page" : undefined}>${name}</a>`)}
  </nav>`;

export function HistoryPlots({path, query}) {
  const [seconds, interval] = RANGES[chosen(query)];
  const load = (signal) => {
    const from = Math.floor(Date.now() / 1000 - seconds);
    return optional(get(path, {interval_seconds: interval, from}, signal));
  };
  const {data} = useResource(load, [path, seconds], {every: interval * 1000});
  if (data === null) return null;
  if (!data) return html`<div class="columns"><div class="plot plot-space"></div><div class="plot plot-space"></div></div>`;
  const has = (series) => series.some(([name]) => data[name]);
  return html`<div class="columns">
    ${has(FLOW) ? html`<${Plot} title="Messages" history=${data} series=${FLOW} />` : null}
    ${has(TROUBLE) ? html`<${Plot} title="Not acked" history=${data} series=${TROUBLE} />` : null}
  </div>`;
}
