import {html, useState} from "../lib/ui.js";
import {at, get} from "../lib/api.js";
import {go, href} from "../lib/router.js";
import {useResource} from "../lib/resource.js";
import {split} from "../lib/scopes.js";
import {can} from "../lib/session.js";
import {Action} from "../components/action.js";
import {Facts, Field, Heading, Loading, Problem, Time} from "../components/basics.js";
import {whole} from "../components/forms.js";
import {ScopeMatrix} from "../components/scope-matrix.js";
import {Secret} from "../components/secret.js";

export default function Client({id}) {
  const {data: client, error, reload} = useResource((signal) => get(at`/clients/${id}`, {}, signal), [id]);
  return html`
    <${Heading} above=${html`<a href="#/clients">Clients</a>`} title=${client?.name ?? id}>
      ${client && can("clients:delete", id)
        ? html`<${Action} label="Delete" kind="danger" request=${() => ({method: "DELETE", path: at`/clients/${id}`})}
            ask=${{title: `Delete ${client.name}`, text: "All tokens of the client end. This cannot be undone.", name: client.name}}
            done=${`Deleted ${client.name}.`} onDone=${() => go("#/clients")} />`
        : null}
    <//>
    <${Problem} error=${error} />
    ${client
      ? html`<${Facts} facts=${[["Id", html`<span class="id">${id}</span>`], ["State", client.is_active ? "active" : "off"], ["Created", html`<${Time} at=${client.created_at} />`], ["Changed", html`<${Time} at=${client.updated_at} />`],
            ["History", can("audit:read") ? html`<a href=${href(["audit"], {client_id: id})}>what it did</a>` : undefined]]} />
          <${Settings} key=${client.updated_at} client=${client} onDone=${reload} />
          ${can("clients:update", id) ? html`<${Secrets} client=${client} />` : null}`
      : error ? null : html`<${Loading} />`}
  `;
}

function Settings({client, onDone}) {
  const [name, setName] = useState(client.name);
  const [scopes, setScopes] = useState(split(client.scopes));
  const [isActive, setActive] = useState(client.is_active);
  const mayChange = can("clients:update", client.id);
  const request = () => ({method: "PUT", path: at`/clients/${client.id}`, body: {name, scopes: scopes.join(" "), is_active: isActive}});
  return html`<section class="card form" aria-label="Settings">
    <${Field} label="Name"><input value=${name} readonly=${!mayChange} onInput=${(event) => setName(event.target.value)} autocomplete="off" /><//>
    <label class="check"><input type="checkbox" checked=${isActive} disabled=${!mayChange} onChange=${(event) => setActive(event.target.checked)} /> Active: it gets tokens</label>
    <div class="wide stack"><${ScopeMatrix} scopes=${scopes} onChange=${mayChange ? setScopes : undefined} /></div>
    ${mayChange
      ? html`<footer><${Action} kind="primary" label="Save client" request=${request} done="Saved. The tokens that it had have ended." onDone=${onDone}
          ask=${{title: "Save the client", text: "This ends all tokens of the client: it gets 401 once, and asks for another."}} /></footer>`
      : null}
  </section>`;
}

function Secrets({client}) {
  const [seconds, setSeconds] = useState("86400");
  const [made, setMade] = useState();
  const request = () => ({method: "POST", path: at`/clients/${client.id}/secrets`, body: {old_secret_seconds: whole(seconds, "The seconds")}});
  return html`<section class="card form" aria-label="Secret">
    <h2 class="wide">Secret</h2>
    ${made ? html`<${Secret} id=${made.id} secret=${made.secret} />` : null}
    <${Field} label="Seconds that the old secret stays good" hint="0 ends it and all tokens now: for a secret that was stolen"><input inputmode="numeric" value=${seconds} onInput=${(event) => setSeconds(event.target.value)} /><//>
    <footer>
      <${Action} label="Rotate secret" request=${request} onDone=${setMade} ask=${{title: "Rotate the secret", text: "The client gets another secret, which is shown once."}} />
      <${Action} label="End the old secret" kind="danger" request=${() => ({method: "DELETE", path: at`/clients/${client.id}/secrets/old`})} done="The old secret and all tokens have ended."
        ask=${{title: "End the old secret", text: "Applications that still use it are refused. All tokens of the client end.", name: client.name}} />
    </footer>
  </section>`;
}
