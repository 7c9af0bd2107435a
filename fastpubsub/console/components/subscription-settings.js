import {html, useState} from "../lib/ui.js";
import {at} from "../lib/api.js";
import {can} from "../lib/session.js";
import {Action} from "./action.js";
import {Field} from "./basics.js";
import {numberOrNull, whole, wholeOrNull} from "./forms.js";

const NUMBERS = [
  ["max_delivery_attempts", "Attempts", "Deliveries until a message becomes a dead letter"],
  ["ack_deadline_seconds", "Ack deadline", "Seconds that a consumer has to settle a message"],
  ["backoff_min_seconds", "Shortest backoff", "Seconds before the second delivery"],
  ["backoff_max_seconds", "Longest backoff", "Seconds; the wait doubles up to this"],
  ["backoff_jitter", "Jitter of the backoff", "The part of each wait, from 0 to 1, that is left to chance, so that what failed together comes apart; empty for none", numberOrNull],
  ["max_in_flight", "In flight", "Messages that all consumers together may hold; empty for no limit", wholeOrNull],
  ["rate_limit", "Rate limit", "Messages a second that all consumers together get; empty for no limit", numberOrNull],
  ["expire_after_seconds", "Expires after", "Seconds without a pull after which the subscription is deleted; empty for never", wholeOrNull],
  ["max_backlog", "Backlog", "Messages of the topic that may come after its cursor; empty for no limit", wholeOrNull],
];
const TOPIC = ["dead_letter_topic", "Dead letter topic", "A topic that gets a copy of each dead letter; empty for none"];
const SETTINGS = [...NUMBERS, TOPIC];

export function SubscriptionSettings({subscription, onDone}) {
  const [values, setValues] = useState(Object.fromEntries(SETTINGS.map(([name]) => [name, subscription[name] ?? ""])));
  const [onExpired, setOnExpired] = useState(subscription.on_expired ?? "drop");
  const [onDeadLetter, setOnDeadLetter] = useState(subscription.on_dead_letter ?? "continue");
  const [onFull, setOnFull] = useState(subscription.on_full ?? "reject");
  const mayChange = can("subscriptions:create", subscription.id);
  const request = () => ({
    method: "PATCH",
    path: at`/subscriptions/${subscription.id}`,
    body: {
      ...Object.fromEntries(NUMBERS.map(([name, label, , read = whole]) => [name, read(values[name] ?? "", label)])),
      // Who may not publish to that topic may change the others.
      ...(values.dead_letter_topic.trim() === (subscription.dead_letter_topic ?? "") ? {} : {dead_letter_topic: values.dead_letter_topic.trim() || null}),
      on_expired: onExpired,
      ...(subscription.ordered ? {on_dead_letter: onDeadLetter} : {}),
      on_full: onFull,
    },
  });
  return html`<div class="card form">
    ${SETTINGS.map(([name, label, hint]) => html`<${Field} key=${name} label=${label} hint=${hint}>
      <input inputmode=${name === "dead_letter_topic" ? "text" : "numeric"} name=${name} readonly=${!mayChange} value=${values[name]} onInput=${(event) => setValues({...values, [name]: event.target.value})} />
    <//>`)}
    <${Field} label="Expired messages" hint="What becomes of a message that expires before it is settled">
      <select name="on_expired" disabled=${!mayChange} value=${onExpired} onChange=${(event) => setOnExpired(event.target.value)}>
        <option value="drop">drop them</option><option value="dead_letter">make dead letters of them</option>
      </select>
    <//>
    ${subscription.ordered ? html`<${Field} label="Ordering key of a dead letter" hint="What becomes of the later messages with the same ordering key">
      <select name="on_dead_letter" disabled=${!mayChange} value=${onDeadLetter} onChange=${(event) => setOnDeadLetter(event.target.value)}>
        <option value="continue">continue</option><option value="hold">hold until it is reprocessed or purged</option>
      </select>
    <//>` : null}
    ${subscription.fair_by ? html`<${Field} label="Shared by" hint="Keys of which messages wait get equally many; chosen when the subscription is created">
      <input name="fair_by" readonly value=${subscription.fair_by} />
    <//>` : null}
    <${Field} label="Full backlog" hint="What happens to more messages than Backlog">
      <select name="on_full" disabled=${!mayChange} value=${onFull} onChange=${(event) => setOnFull(event.target.value)}>
        <option value="reject">refuse what is published</option><option value="drop_oldest">drop the oldest</option><option value="dead_letter">make dead letters of the oldest</option>
      </select>
    <//>
    ${mayChange ? html`<footer><${Action} kind="primary" label="Save settings" request=${request} done="Saved." onDone=${onDone} /></footer>` : null}
  </div>`;
}
