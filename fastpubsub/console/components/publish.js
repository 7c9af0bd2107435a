// Publishes a message; says while one types what of the schema of the topic it does not match.

import {html, useEffect, useState} from "../lib/ui.js";
import {at, send} from "../lib/api.js";
import {isObject, parse, pretty} from "../lib/json.js";
import {href} from "../lib/router.js";
import {mismatches} from "../lib/schema.js";
import {can} from "../lib/session.js";
import {Action} from "./action.js";
import {Field, tell} from "./basics.js";

/** `template`: the id of a message to start from. */
export function Publish({topic, template}) {
  const [payload, setPayload] = useState("{\n  \n}");
  const [attributes, setAttributes] = useState("");
  const [published, setPublished] = useState([]);
  const mayLook = can("messages:read", topic.id);

  async function startFrom(load) {
    try {
      const message = await load();
      if (message?.payload === undefined) return tell("There is no message to start from.");
      setPayload(pretty(message.payload));
      setAttributes(message.attributes ? pretty(message.attributes) : "");
    } catch (error) {
      tell(error.message);
    }
  }
  const last = async () => (await send({path: at`/topics/${topic.id}/messages`, query: {limit: 1}, exact: true})).data.at(-1);
  useEffect(() => {
    if (template) startFrom(() => send({path: at`/messages/${template}`, exact: true}));
  }, [template]);

  const problems = judged(payload, attributes, topic.schema);
  const request = () => ({
    method: "POST",
    path: at`/topics/${topic.id}/messages`,
    headers: {Prefer: "return=representation"},
    text: bodyOf(payload, attributes),
  });
  return html`<div class="card form publish">
    <${Field} isWide label="Payload" hint="One JSON object, stored byte for byte as it stands here">
      <textarea rows="12" name="payload" value=${payload} onInput=${(event) => setPayload(event.target.value)} spellcheck=${false} aria-describedby="publish-problems"></textarea>
    <//>
    <ul id="publish-problems" class="wide" aria-live="polite">${problems.map((one) => html`<li key=${one} class="problem">${one}</li>`)}</ul>
    <${Field} isWide label="Attributes" hint=${html`A JSON object of strings, such as <code>{"source": "console"}</code>; may be empty`}>
      <textarea class="short" rows="3" name="attributes" value=${attributes} onInput=${(event) => setAttributes(event.target.value)} spellcheck=${false}></textarea>
    <//>
    <footer>
      ${mayLook ? html`<button type="button" onClick=${() => startFrom(last)}>Use the last message</button>` : null}
      <${Action} kind="primary" label="Publish" request=${request} isDisabled=${problems.length > 0} done="Published." onDone=${({ids}) => setPublished([...ids, ...published].slice(0, 10))} />
    </footer>
    ${published.length ? html`<p>Published: ${published.map((id) => html`<a key=${id} class="id" href=${href(["messages", id])}>${id}</a> `)}</p>` : null}
  </div>`;
}

function bodyOf(payload, attributes) {
  if (!attributes.trim()) return `[${payload}]`;
  return `{"messages": [{"payload": ${payload}, "attributes": ${attributes}}]}`;
}

function judged(payload, attributes, schema) {
  const [value, problem] = parsed(payload, "The payload");
  const [given, attributesProblem] = attributes.trim() ? parsed(attributes, "The attributes") : [{}];
  if (problem || attributesProblem) return [problem, attributesProblem].filter(Boolean);
  const wrong = Object.entries(given).find(([, one]) => typeof one !== "string");
  return [
    ...(schema === null ? [] : mismatches(schema, value).map(({pointer, message}) => `${pointer || "The payload"} ${message}`)),
    ...(wrong ? [`The attribute ${JSON.stringify(wrong[0])} must be a string`] : []),
  ];
}

function parsed(text, what) {
  try {
    const value = parse(text);
    return isObject(value) && !Array.isArray(value) ? [value] : [undefined, `${what} must be a JSON object`];
  } catch (error) {
    return [undefined, `${what} is not JSON yet: ${error.message}`];
  }
}
