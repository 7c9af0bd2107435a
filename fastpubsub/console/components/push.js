// How a subscription is pushed: where to, whether the endpoint takes it, what became of each push, and requests by hand.

import {html, useState} from "../lib/ui.js";
import {at, curl, get} from "../lib/api.js";
import {count, plural} from "../lib/format.js";
import {here} from "../lib/router.js";
import {useResource} from "../lib/resource.js";
import {Action} from "./action.js";
import {Empty, Facts, Field, Loading, MessageLink, Problem, Table, Time} from "./basics.js";
import {whole} from "./forms.js";
import {Secret} from "./secret.js";

const EVERY = 3000;
const LIMIT = 20;
const OUTCOMES = {
  ack: ["settled", "acknowledged"],
  nack: ["waiting", "comes again"],
  reject: ["dead", "a dead letter"],
  return: ["ahead", "was not sent, and comes again"],
};

export function Push({subscription: {id, push}, query: {from}}) {
  if (!push) {
    const request = {method: "PATCH", path: at`/subscriptions/${id}`, body: {push: {endpoint: "https://example.com/hook"}}};
    return html`<${Empty} title="It is not pushed"><p>Consumers pull its messages. To have them posted to your service instead:</p><pre tabindex="0">${curl(request)}</pre><//>`;
  }
  return html`<${Pushed} key=${id} id=${id} push=${push} from=${from} />`;
}

async function load(id, from, signal) {
  const [status, attempts] = await Promise.all([
    get(at`/subscriptions/${id}/push`, {}, signal),
    get(at`/subscriptions/${id}/attempts`, {limit: LIMIT, page_token: from}, signal),
  ]);
  return {status, attempts};
}

function Pushed({id, push, from}) {
  const {data, error, reload} = useResource((signal) => load(id, from, signal), [id, from], {every: EVERY});
  return html`
    <${Problem} error=${error} />
    ${data ? html`<${Status} ...${data.status} />` : null}
    <${Facts} facts=${[
      ["Endpoint", html`<code>${push.endpoint}</code>`],
      ["Format", push.format],
      ["Signature", push.signature],
      ["Headers", push.header_names.length ? html`<code>${push.header_names.join(", ")}</code>` : "none"],
      ["Timeout", `${push.timeout_seconds} s`],
      ["At once", html`at most <span class="number">${count(push.max_concurrency)}</span>`],
      ["Dead letters at once", push.reject_on.length ? push.reject_on.join(", ") : "for no status"],
      ["Breaker", data?.status.breaker],
      ["Two secrets until", data?.status.old_secret_expires_at ? html`<${Time} at=${data.status.old_secret_expires_at} />` : undefined],
    ]} />
    ${data ? html`<${Attempts} id=${id} answer=${data.attempts} from=${from} onDone=${reload} />` : error ? null : html`<${Loading} />`}
    <${Test} id=${id} />
    <${Rotation} id=${id} onDone=${reload} />
  `;
}

function Status({is_held, breaker, failures, breaker_opened_at, next_try_at, last_failure}) {
  return html`
    ${is_held ? null : html`<p class="note"><span class="state paused">not pushed</span> No process pushes it. Run <code>fastpubsub push</code>, or servers that push and have the key for secrets.</p>`}
    ${breaker === "closed"
      ? null
      : html`<p class="note"><span class="state waiting">${breaker}</span> The endpoint has failed since <${Time} at=${breaker_opened_at} />, the last time with failure ${failures} in a row: ${last_failure}. Messages wait; the next one is tried <${Time} at=${next_try_at} relative />.</p>`}
  `;
}

function Attempts({id, answer: {data, next_page_token}, from, onDone}) {
  if (!data.length && !from) return html`<${Empty} title="Nothing was pushed lately"><p>Send a test, or publish a message.</p><//>`;
  return html`<${Table} label="Pushes" columns=${["At", "Message", {name: "Attempt", class: "right"}, "Outcome", {name: "Status", class: "right"}, {name: "ms", class: "right"}, "The endpoint said", {name: "Once more", class: "fit"}]}>
    ${data.map((one) => html`<tr key=${`${one.message_id} ${one.attempt} ${one.at}`}>
      <td class="fit"><${Time} at=${one.at} /></td>
      <td class="fit"><${MessageLink} id=${one.message_id} /></td>
      <td class="right">${count(one.attempt)}</td>
      <td class="fit"><span class=${`state ${OUTCOMES[one.outcome][0]}`} title=${OUTCOMES[one.outcome][1]}>${one.outcome}</span></td>
      <td class="right">${one.status ?? "–"}</td>
      <td class="right">${count(one.milliseconds)}</td>
      <td>${one.said}</td>
      <td class="fit"><${Action} label="Send again" kind="quiet" request=${() => ({method: "POST", path: at`/subscriptions/${id}/push/resend`, body: {message_id: one.message_id}})} done=${answered} onDone=${onDone} /></td>
    </tr>`)}
  <//>
  ${from || next_page_token
    ? html`<nav class="pager" aria-label="Pages">
        ${from ? html`<a href=${here({from: undefined})}>First</a>` : null}
        ${next_page_token ? html`<a class="next" href=${here({from: next_page_token})}>Next ${LIMIT}</a>` : html`<span class="muted">That is all.</span>`}
      </nav>`
    : null}
  <p class="muted">To push everything from a time on once more, <a href=${here({tab: "seek", from: undefined})}>seek</a> to that time.</p>`;
}

const answered = ({status, milliseconds, said}) =>
  status === null ? `No answer: ${said}.` : `The endpoint answered ${status} after ${plural(milliseconds, "millisecond")}${said ? `: ${said}` : "."}`;

function Test({id}) {
  const [payload, setPayload] = useState("");
  const [tested, setTested] = useState();
  const request = () => ({
    method: "POST",
    path: at`/subscriptions/${id}/push/test`,
    text: payload.trim() ? `{"payload": ${payload}}` : "{}",
  });
  return html`<section class="card form" aria-label="Test">
    <h2 class="wide">Test</h2>
    <${Field} isWide label="Payload" hint="One JSON object; empty for one that says that it is a test">
      <textarea class="short" rows="3" name="payload" value=${payload} onInput=${(event) => setPayload(event.target.value)} spellcheck=${false}></textarea>
    <//>
    <footer><${Action} kind="primary" label="Send a test" request=${request} onDone=${setTested} /></footer>
    ${tested ? html`<p class="wide" role="status">${answered(tested)}</p>` : null}
  </section>`;
}

function Rotation({id, onDone}) {
  const [seconds, setSeconds] = useState("86400");
  const [secret, setSecret] = useState();
  const request = () => ({method: "POST", path: at`/subscriptions/${id}/push/secrets`, body: {old_secret_seconds: whole(seconds, "The seconds")}});
  return html`<section class="card form" aria-label="Secret">
    <h2 class="wide">Secret</h2>
    ${secret ? html`<${Secret} secret=${secret} />` : null}
    <${Field} label="Seconds that the old secret also signs" hint="0 ends it now: for a secret that was stolen"><input inputmode="numeric" value=${seconds} onInput=${(event) => setSeconds(event.target.value)} /><//>
    <footer><${Action} label="Rotate secret" request=${request} onDone=${(made) => (setSecret(made.secret), onDone())} ask=${{title: "Rotate the secret", text: "Requests are signed with another secret, which is shown once. Give it to your service while both sign."}} /></footer>
  </section>`;
}
