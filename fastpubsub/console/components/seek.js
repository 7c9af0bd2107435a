// Replays or skips; what would happen is shown first.

import {html, useState} from "../lib/ui.js";
import {at, send} from "../lib/api.js";
import {count} from "../lib/format.js";
import {Action, Curl} from "./action.js";
import {Facts, Field, Problem, Time} from "./basics.js";

const CHOICES = [
  ["earliest", "The oldest message that is kept"],
  ["latest", "Only what is published from now on"],
  ["time", "A time"],
  ["message", "A message"],
];

export function Seek({subscription: {id}, onDone}) {
  const [choice, setChoice] = useState("earliest");
  const [given, setGiven] = useState("");
  const [preview, setPreview] = useState();
  const [error, setError] = useState();
  const change = (set) => (event) => {
    set(event.target.value);
    setPreview(undefined);
  };
  const to = () => {
    if (choice === "earliest" || choice === "latest") return choice;
    if (!given.trim()) throw new Error(choice === "time" ? "Give the time." : "Give the id of the message.");
    return choice === "time" ? new Date(given).toISOString() : given.trim();
  };
  const request = (more = {}) => ({method: "POST", path: at`/subscriptions/${id}/seek`, body: {to: to(), ...more}});
  async function look() {
    setError(undefined);
    try {
      setPreview(await send(request({dry_run: true})));
    } catch (refused) {
      setError(refused.status === 422 && /dry_run/.test(refused.message) ? new Error("This server cannot preview a seek.") : refused);
    }
  }
  return html`<div class="card form">
    <fieldset class="wide choices">
      <legend class="muted">What comes next</legend>
      ${CHOICES.map(([value, label]) => html`<label key=${value} class="check"><input type="radio" name="to" value=${value} checked=${choice === value} onChange=${change(setChoice)} /> ${label}</label>`)}
    </fieldset>
    ${choice === "time" ? html`<${Field} label="Time, in your time zone"><input type="datetime-local" step="1" value=${given} onInput=${change(setGiven)} /><//>` : null}
    ${choice === "message" ? html`<${Field} isWide label="Message id"><input value=${given} onInput=${change(setGiven)} spellcheck=${false} autocomplete="off" /><//>` : null}
    ${preview ? html`<div class="wide note"><${Preview} preview=${preview} /></div>` : null}
    <${Problem} error=${error} />
    <footer>
      <button type="button" onClick=${look}>Preview</button><${Curl} request=${() => request({dry_run: true})} label="Copy the preview as curl" />
      <${Action} kind="danger" label="Seek" request=${request} done="Done. Messages come from there now."
        ask=${{title: `Seek ${id}`, text: "Open deliveries end without effect, and waiting retries are dropped. Dead letters stay.", name: id}}
        onDone=${() => (setPreview(undefined), onDone())} />
      <${Action} kind="danger" label="Purge" request=${() => ({method: "POST", path: at`/subscriptions/${id}/purge`})}
        done=${(answer) => `Purged ${answer?.is_estimated ? "about " : ""}${count(answer?.purged)} messages.`}
        ask=${{title: `Purge ${id}`, text: "Everything that is ahead, leased or waiting is settled and does not come again. Dead letters stay.", name: id}} onDone=${onDone} />
    </footer>
  </div>`;
}

const Preview = ({preview}) => html`<${Facts} facts=${[
  ["Ahead now", count(preview.ahead_now)],
  ["Ahead then", `${preview.is_estimated ? "about " : ""}${count(preview.ahead_after)}`],
  ["Deliveries that end", count(preview.ends_leased)],
  ["Retries that are dropped", count(preview.ends_waiting)],
  ["From", preview.from ? html`<${Time} at=${preview.from} />` : undefined],
  ["To", preview.to ? html`<${Time} at=${preview.to} />` : undefined],
]} />`;
