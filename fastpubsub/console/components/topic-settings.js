import {html, useState} from "../lib/ui.js";
import {at} from "../lib/api.js";
import {pretty} from "../lib/json.js";
import {can} from "../lib/session.js";
import {Action} from "./action.js";
import {Field} from "./basics.js";
import {objectOrNull, wholeOrNull} from "./forms.js";

export function TopicSettings({topic, onDone}) {
  const [retention, setRetention] = useState(topic.retention_seconds ?? "");
  const [schema, setSchema] = useState(topic.schema === null ? "" : pretty(topic.schema));
  const mayChange = can("topics:create", topic.id);
  const request = () => ({
    method: "PATCH",
    path: at`/topics/${topic.id}`,
    body: {retention_seconds: wholeOrNull(retention, "Retention"), schema: objectOrNull(schema, "The schema")},
  });
  return html`<div class="form card">
    <${Field} label="Retention in seconds" hint="How long settled messages stay for replay; empty: the server's setting">
      <input inputmode="numeric" value=${retention} readonly=${!mayChange} onInput=${(event) => setRetention(event.target.value)} />
    <//>
    <${Field} isWide label="JSON Schema" hint="Every payload that is published from now on must match it; empty: anything">
      <textarea rows="12" value=${schema} readonly=${!mayChange} onInput=${(event) => setSchema(event.target.value)} spellcheck=${false}></textarea>
    <//>
    ${mayChange ? html`<footer><${Action} kind="primary" label="Save settings" request=${request} done="Saved." onDone=${onDone} /></footer>` : null}
  </div>`;
}
