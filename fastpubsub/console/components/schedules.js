// The schedules of a topic: what publishes again and again, and when it does next.

import {html, useState} from "../lib/ui.js";
import {at, get} from "../lib/api.js";
import {plural} from "../lib/format.js";
import {pretty} from "../lib/json.js";
import {useResource} from "../lib/resource.js";
import {can} from "../lib/session.js";
import {Action} from "./action.js";
import {Count, Empty, Loading, MessageLink, Problem, Table, Time} from "./basics.js";
import {Pager, pageOf} from "./pager.js";

const EVERY = 5000;
const LIMIT = 20;

export function Schedules({id, query}) {
  const {data, error, reload} = useResource((signal) => get(at`/topics/${id}/schedules`, {limit: LIMIT, ...pageOf(query)}, signal), [id, query.page_token], {every: EVERY});
  if (!data) return error ? html`<${Problem} error=${error} />` : html`<${Loading} />`;
  if (!data.data.length) {
    return html`<${Empty} title="This topic has no schedules">
      <p>A schedule publishes a message again and again: at the times of a cron expression, or at an interval.</p>
      <p><code>fastpubsub schedules create ${id} daily --cron '0 9 * * *'</code></p>
    <//>`;
  }
  return html`
    <${Problem} error=${error} />
    <${Table} label="Schedules" columns=${["Schedule", "Times", "Next", {name: "Last", class: "secondary"}, {name: "Published", class: "right secondary"}, {name: "Missed", class: "right secondary"}, {name: "Actions", class: "right"}]}>
      ${data.data.map((one) => html`<${Row} key=${one.id} topicId=${id} schedule=${one} reload=${reload} />`)}
    <//>
    <${Pager} answer=${data} limit=${LIMIT} />
  `;
}

const times = ({cron, time_zone, interval_seconds}) => (cron ? html`<code>${cron}</code> <span class="muted">${time_zone}</span>` : `every ${plural(interval_seconds, "second")}`);

function Row({topicId, schedule, reload}) {
  const [isOpen, setOpen] = useState(false);
  const {id, is_paused, next_at, last_fired_at, last_message_id, fired, missed, problem} = schedule;
  return html`
    <tr>
      <td><button type="button" class="quiet id" aria-expanded=${isOpen} onClick=${() => setOpen(!isOpen)}>${id}</button></td>
      <td>${times(schedule)}</td>
      <td>${is_paused ? html`<span class="state paused">paused</span>` : html`<${Time} at=${next_at} relative />`}</td>
      <td class="secondary">${last_message_id ? html`<${Time} at=${last_fired_at} relative /> <${MessageLink} id=${last_message_id} />` : "–"}</td>
      <td class="right secondary"><${Count} value=${fired} /></td>
      <td class="right secondary"><${Count} value=${missed} /></td>
      <td class="right">${can("topics:publish", topicId) ? html`<${Actions} topicId=${topicId} schedule=${schedule} reload=${reload} />` : null}</td>
    </tr>
    ${isOpen || problem ? html`<tr><td colspan="7">${problem ? html`<p class="problem">${problem}</p>` : null}${isOpen ? html`<${Details} topicId=${topicId} id=${id} version=${next_at} />` : null}</td></tr>` : null}
  `;
}

function Actions({topicId, schedule: {id, is_paused}, reload}) {
  const post = (verb) => () => ({method: "POST", path: at`/topics/${topicId}/schedules/${id}/${verb}`});
  return html`<span class="toolbar">
    <${Action} label="Fire now" request=${post("fire")} done=${`Published the message of ${id}.`} onDone=${reload} />
    <${Action} label=${is_paused ? "Resume" : "Pause"} request=${post(is_paused ? "resume" : "pause")} onDone=${reload} />
    <${Action} label="Delete" kind="danger" request=${() => ({method: "DELETE", path: at`/topics/${topicId}/schedules/${id}`})} onDone=${reload}
      ask=${{title: `Delete ${id}`, text: "The schedule publishes nothing any more. The messages that it has published stay."}} />
  </span>`;
}

/** The next five times, and the message. */
function Details({topicId, id, version}) {
  const {data, error} = useResource((signal) => get(at`/topics/${topicId}/schedules/${id}`, {}, signal), [topicId, id], {version});
  if (!data) return error ? html`<${Problem} error=${error} />` : html`<${Loading} />`;
  const upcoming = data.upcoming ?? [];
  return html`<div class="form">
    ${upcoming.length ? html`<p>The next ${plural(upcoming.length, "time")}:</p><ol>${upcoming.map((time) => html`<li key=${time}><${Time} at=${time} /></li>`)}</ol>` : html`<p>It publishes nothing until it is resumed.</p>`}
    ${data.payload === undefined ? html`<p class="muted">This client may not read the payload: that needs the scope messages:read.</p>` : html`<pre>${pretty(data.payload)}</pre>`}
  </div>`;
}
