// Changes the filter, and shows first what it would do to the last messages.

import {html, useState} from "../lib/ui.js";
import {at, send} from "../lib/api.js";
import {count, plural} from "../lib/format.js";
import {oneLine, pretty} from "../lib/json.js";
import {can} from "../lib/session.js";
import {Action, Curl} from "./action.js";
import {Facts, Field, MessageLink, Problem, Table} from "./basics.js";
import {objectOrNull} from "./forms.js";
import {Preview} from "./json-view.js";

const LAST = 100;

export function FilterEditor({subscription, onDone}) {
  const [text, setText] = useState(subscription.filter ? pretty(subscription.filter) : "");
  const [tested, setTested] = useState();
  const [error, setError] = useState();
  const mayChange = can("subscriptions:create", subscription.id);
  const filter = () => objectOrNull(text, "The filter");
  const test = () => ({method: "POST", path: at`/subscriptions/${subscription.id}/filter/test`, body: {filter: filter(), last: LAST}, exact: true});
  const change = () => ({method: "PATCH", path: at`/subscriptions/${subscription.id}`, body: {filter: filter()}});

  async function run() {
    setError(undefined);
    try {
      setTested(await send(test()));
    } catch (refused) {
      setTested(undefined);
      setError(refused.isMissing ? new Error("This server cannot test filters.") : refused);
    }
  }
  const save = () => {
    setTested(undefined);
    onDone();
  };
  return html`
    <div class="card form">
      <${Field} isWide label="Filter" hint=${html`Each field must be there and have one of its values, by type and to the letter: <code>{"country": ["BR", "US"], "total": [{"numeric": [">=", 100]}]}</code>. Without a filter, everything passes.`}>
        <textarea rows="6" name="filter" value=${text} onInput=${(event) => setText(event.target.value)} spellcheck=${false}></textarea>
      <//>
      <footer>
        <button type="button" onClick=${run}>Test with the last ${LAST} messages</button><${Curl} request=${test} label="Copy the test as curl" />
        ${mayChange ? html`<${Action} kind="primary" label="Save filter" request=${change} done="Saved. Messages that were judged already stay as they were judged." onDone=${save} />` : null}
      </footer>
      <${Problem} error=${error} />
    </div>
    ${tested ? html`<${Tested} tested=${tested} />` : null}
  `;
}

function Tested({tested}) {
  const about = tested.is_estimated ? "about " : "";
  return html`<section class="card" aria-label="Outcome of the test" aria-live="polite">
    <${Facts} facts=${[
      ["Looked at", plural(tested.looked_at, "message")],
      ["Pass", html`<strong class="number">${count(tested.passed)}</strong>`],
      ["Kept out", html`<strong class="number">${count(tested.looked_at - tested.passed)}</strong>`],
      ["Ahead now", tested.ahead_now === undefined ? undefined : count(tested.ahead_now)],
      ["Ahead then", tested.ahead_after === undefined ? undefined : `${about}${count(tested.ahead_after)}`],
    ]} />
    ${tested.passing?.length ? html`<h2>Some that pass</h2><${Examples} examples=${tested.passing} />` : null}
    ${tested.filtered?.length ? html`<h2>Some that are kept out, and why</h2><${Examples} examples=${tested.filtered} why />` : null}
  </section>`;
}

const Examples = ({examples, why}) => html`<${Table} label=${why ? "Kept out" : "Pass"} columns=${[{name: "Message", class: "fit"}, ...(why ? ["Why"] : []), "Payload"]}>
  ${examples.map((one) => html`<tr key=${one.id}>
    <td class="fit"><${MessageLink} id=${one.id} /></td>
    ${why ? html`<td class="why"><${Why} verdict=${one} /></td>` : null}
    <td class="payload"><${Preview} payload=${one.payload} /></td>
  </tr>`)}
<//>`;

const wanted = (expected) => Array.isArray(expected)
  ? html`must be one of <code>${expected.map(oneLine).join(", ")}</code>`
  : html`must have <code>${oneLine(expected)}</code>`;

/** The field that decided, what the filter takes there, and what the message has. */
export function Why({verdict: {field, expected, actual, similar_field, detail}}) {
  if (field === undefined) return detail ?? null;
  return html`<code>${field}</code> ${expected ? wanted(expected) : null}
    ${actual !== undefined ? html`, and is <code>${oneLine(actual)}</code>` : null}
    ${similar_field ? html`. The message has <code>${similar_field}</code>` : null}`;
}
