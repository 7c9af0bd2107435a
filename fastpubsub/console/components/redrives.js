// Gives all dead letters that match to the consumers again, or purges them, at a rate: a job that one can watch and cancel.

import {html, useEffect, useRef, useState} from "../lib/ui.js";
import {at, get} from "../lib/api.js";
import {count, plural} from "../lib/format.js";
import {optional, useResource} from "../lib/resource.js";
import {Action} from "./action.js";
import {Field, Time} from "./basics.js";
import {objectOrNull, wholeOrNull} from "./forms.js";

const EVERY = 1000;

/** `reason`: the one that was chosen above; without it all match. */
export function Redrives({id, reason, onProgress}) {
  const [perSecond, setPerSecond] = useState("50");
  const [filter, setFilter] = useState("");
  const {data, reload} = useResource((signal) => optional(get(at`/subscriptions/${id}/redrives`, {}, signal)), [id], {every: EVERY});
  const done = (data?.data ?? []).reduce((sum, one) => sum + one.done, 0);
  const before = useRef();
  useEffect(() => {
    if (before.current !== undefined && before.current !== done) onProgress();
    before.current = done;
  }, [done]);
  if (data === null) return null;
  const request = (action) => () => ({method: "POST", path: at`/subscriptions/${id}/redrives`, body: {action, reason, filter: objectOrNull(filter, "The filter"), per_second: wholeOrNull(perSecond, "The rate")}});
  const which = `${reason ? `with the reason “${reason}”` : "of this subscription"}${filter.trim() ? " that match the filter" : ""}`;
  return html`<section class="card" aria-label="Redrive">
    <div class="toolbar">
      <${Field} label="Messages per second"><input class="narrow" inputmode="numeric" value=${perSecond} onInput=${(event) => setPerSecond(event.target.value)} /><//>
      <${Field} label="Filter"><input spellcheck="false" placeholder='{"country": ["BR"]}' value=${filter} onInput=${(event) => setFilter(event.target.value)} /><//>
      <span class="push toolbar">
        <${Action} label=${reason ? "Redrive this reason" : "Redrive all"} kind="primary" request=${request("reprocess")} onDone=${reload}
          ask=${{title: "Redrive", text: `All dead letters ${which} are given to the consumers again, with all their attempts.`}} />
        <${Action} label=${reason ? "Purge this reason" : "Purge all"} kind="danger" request=${request("purge")} onDone=${reload}
          ask=${{title: "Purge", text: `All dead letters ${which} are deleted with their payloads. This cannot be undone.`, name: id}} />
      </span>
    </div>
    ${(data?.data ?? []).slice(0, 5).map((one) => html`<${Redrive} key=${one.id} id=${id} redrive=${one} reload=${reload} />`)}
  </section>`;
}

function Redrive({id, redrive: {id: redriveId, action, state, reason, filter, matched, done, created_at}, reload}) {
  const word = action === "purge" ? "Purge" : "Redrive";
  return html`<div class="redrive">
    <span>${word} ${reason ? html`of “${reason}”` : filter ? "" : "of all"} ${filter ? html`<code class="details">${JSON.stringify(filter)}</code>` : null} <span class="muted"><${Time} at=${created_at} relative /></span></span>
    <progress max=${Math.max(matched ?? done, 1)} value=${state === "done" ? Math.max(matched ?? done, 1) : done} aria-label=${`${word}: ${done} of ${matched ?? "unknown"}`}></progress>
    <span class="number">${matched === null ? plural(done, "message") : html`${count(done)} of ${plural(matched ?? done, "message")}`} · ${state}</span>
    ${state === "running" ? html`<${Action} label="Cancel" request=${() => ({method: "DELETE", path: at`/subscriptions/${id}/redrives/${redriveId}`})} done="Cancelled. What was done stays done." onDone=${reload} />` : null}
  </div>`;
}
