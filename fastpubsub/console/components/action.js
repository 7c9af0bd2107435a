// A button that sends a request: it shows it as a command, too, and asks before something dangerous.

import {html, useState} from "../lib/ui.js";
import {curl, send} from "../lib/api.js";
import {Dialog, Field, Problem, tell} from "./basics.js";

export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    tell(`Copied ${what}.`);
  } catch {
    tell(`The browser did not let the console copy. Here it is: ${text}`);
  }
}

function copyCommand(request) {
  let command;
  try {
    command = curl(request());
  } catch (error) {
    return tell(error.message); // what is wrong with the form
  }
  return copy(command, "the command");
}

/** Copies the request as a command; `request` may throw what is wrong with the form. */
export const Curl = ({request, label = "Copy as curl"}) =>
  html`<button type="button" class="quiet curl" onClick=${() => copyCommand(request)} title=${label} aria-label=${label}>curl</button>`;

/** `request` makes the request when the button is pressed, and may throw what is wrong with the form. */
export function Action({label, request, onDone, done, kind = "", ask, isDisabled}) {
  const [isAsking, setAsking] = useState(false);
  const [error, setError] = useState();
  const [isBusy, setBusy] = useState(false);

  async function run() {
    setBusy(true);
    setError(undefined);
    try {
      const answer = await send(request());
      setAsking(false);
      if (done) tell(typeof done === "function" ? done(answer) : done);
      onDone?.(answer);
    } catch (refused) {
      setError(refused);
    }
    setBusy(false);
  }

  return html`<span class="action">
    <button type="button" class=${kind} disabled=${isBusy || isDisabled} onClick=${ask ? () => setAsking(true) : run}>${label}</button>
    <${Curl} request=${request} label=${`Copy “${label}” as curl`} />
    ${isAsking ? null : html`<${Problem} error=${error} />`}
    ${isAsking ? html`<${Asking} ...${ask} label=${label} isBusy=${isBusy} error=${error} onYes=${run} onClose=${() => setAsking(false)} />` : null}
  </span>`;
}


/** `name`: has to be typed before the button works. */
function Asking({title, text, name, label, isBusy, error, onYes, onClose}) {
  const [typed, setTyped] = useState("");
  const submit = (event) => {
    event.preventDefault();
    if (!name || typed === name) onYes();
  };
  return html`<${Dialog} title=${title ?? label} onClose=${onClose}>
    <form onSubmit=${submit}>
      <p>${text}</p>
      ${name
        ? html`<${Field} label=${html`Type <strong class="id">${name}</strong> to confirm`}>
            <input autocomplete="off" autofocus spellcheck=${false} value=${typed} onInput=${(event) => setTyped(event.target.value)} />
          <//>`
        : null}
      <${Problem} error=${error} />
      <footer>
        <button type="button" onClick=${onClose}>Cancel</button>
        <button class="danger" disabled=${isBusy || (name && typed !== name)}>${label}</button>
      </footer>
    </form>
  <//>`;
}
