// Rates over time. What the plot shows stands beside it in numbers, for those who do not see it, and while the mouse is on it.

import {html, useEffect, useRef, useState} from "../lib/ui.js";
import {rate} from "../lib/format.js";

const HEIGHT = 150;
const dark = matchMedia("(prefers-color-scheme: dark)");

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** series: [[name of the column, label, color variable]]; history: the answer of /history. */
export function Plot({title, history, series}) {
  const box = useRef();
  const plot = useRef();
  const [at, setAt] = useState(null);
  const [isDark, setDark] = useState(dark.matches);
  const shown = series.filter(([name]) => history[name]);
  const data = [history.times, ...shown.map(([name]) => history[name].map((one) => one / history.interval_seconds))];
  const latest = useRef();
  latest.current = data;

  useEffect(() => {
    const follow = () => setDark(dark.matches);
    dark.addEventListener("change", follow);
    return () => dark.removeEventListener("change", follow);
  }, []);

  useEffect(() => {
    const element = box.current; // its ref is empty before the observer is told to end
    if (!element) return undefined;
    plot.current = new uPlot(options(element.clientWidth, shown, setAt), latest.current, element);
    const watch = new ResizeObserver(() => plot.current?.setSize({width: element.clientWidth, height: HEIGHT}));
    watch.observe(element);
    return () => {
      watch.disconnect();
      plot.current.destroy();
      plot.current = undefined;
    };
  }, [isDark, shown.map(([name]) => name).join()]);

  useEffect(() => plot.current?.setData(latest.current), [history]);

  const index = at ?? data[0].length - 1;
  return html`<figure class="plot">
    <figcaption>
      <h2>${title}</h2>
      <ul class="legend">
        ${shown.map(([name, label, variable], nth) => html`<li key=${name}><i class=${variable.slice(2)}></i>${label} <span class="number">${rate(data[nth + 1][index])}</span></li>`)}
      </ul>
    </figcaption>
    <div ref=${box} class="canvas" role="img" aria-label=${`${title}: ${shown.map(([, label], nth) => `${label} ${rate(data[nth + 1].at(-1))}`).join(", ")}`}></div>
  </figure>`;
}

function options(width, shown, setAt) {
  const axis = {stroke: color("--muted"), font: "11px system-ui", grid: {stroke: color("--line"), width: 1}, ticks: {show: false}};
  return {
    width,
    height: HEIGHT,
    legend: {show: false},
    cursor: {y: false, points: {size: 6}, drag: {x: false, y: false}},
    scales: {y: {range: (_plot, _low, high) => [0, high > 0 ? high * 1.1 : 1]}},
    axes: [{...axis, grid: {show: false}, size: 26, space: 70, values: times}, {...axis, size: 42, space: 34}],
    series: [{}, ...shown.map(([, label, variable]) => ({label, stroke: color(variable), width: 1.5, points: {show: false}}))],
    hooks: {setCursor: [({cursor}) => setAt(cursor.idx ?? null)]},
  };
}

const clock = new Intl.DateTimeFormat("en-GB", {hour: "2-digit", minute: "2-digit"});
const times = (_plot, ticks) => ticks.map((one) => clock.format(one * 1000));
