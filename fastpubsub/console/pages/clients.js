import {html, useState} from "../lib/ui.js";
import {get} from "../lib/api.js";
import {amend, href} from "../lib/router.js";
import {useResource} from "../lib/resource.js";
import {can} from "../lib/session.js";
import {Action} from "../components/action.js";
import {Dialog, Empty, Field, Heading, Loading, Problem, Table, Time} from "../components/basics.js";
import {LIMIT} from "../components/lists.js";
import {pageOf, Pager} from "../components/pager.js";
import {ScopeMatrix} from "../components/scope-matrix.js";
import {Secret} from "../components/secret.js";

export default function Clients({query}) {
  const mayRead = can("clients:read");
  const load = async (signal) => (mayRead ? get("/clients", {limit: LIMIT, ...pageOf(query)}, signal) : {data: []});
  const {data, error, reload} = useResource(load, [query.offset, query.page_token]);
  return html`
    <${Heading} title="Clients">
      ${can("clients:create") ? html`<button type="button" class="primary" onClick=${() => amend({create: 1})}>New client</button>` : null}
    <//>
    <${Problem} error=${error} />
    ${data ? html`<${List} answer=${data} mayRead=${mayRead} />` : error ? null : html`<${Loading} />`}
    ${query.create && can("clients:create") ? html`<${NewClient} onClose=${() => (amend({create: undefined}), reload())} />` : null}
  `;
}

function List({answer, mayRead}) {
  if (!answer.data.length) {
    return html`<${Empty} title=${mayRead ? "There are no clients" : "This client may not list clients"}><p>A client is an application with an id, a secret and scopes. It exchanges them for a token, and sends that with each request.</p><//>`;
  }
  return html`
    <${Table} label="Clients" columns=${["Client", {name: "State", class: "fit"}, "Scopes", {name: "Changed", class: "fit secondary"}]}>
      ${answer.data.map(({id, name, is_active, scopes, updated_at}) => html`<tr key=${id}>
        <td><a href=${href(["clients", id])}>${name}</a></td>
        <td class="fit"><span class=${`state ${is_active ? "leased" : "waiting"}`}>${is_active ? "active" : "off"}</span></td>
        <td><code class="details">${scopes}</code></td>
        <td class="fit secondary"><${Time} at=${updated_at} /></td>
      </tr>`)}
    <//>
    <${Pager} answer=${answer} limit=${LIMIT} />
  `;
}

function NewClient({onClose}) {
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState(["topics:read", "subscriptions:read"]);
  const [made, setMade] = useState();
  const request = () => ({method: "POST", path: "/clients", body: {name, scopes: scopes.join(" ")}});
  return html`<${Dialog} title="New client" onClose=${onClose}>
    ${made
      ? html`<div class="form"><${Secret} ...${made} /><footer><a class="button" href=${href(["clients", made.id])}>Show the client</a></footer></div>`
      : html`<div class="form">
          <${Field} isWide label="Name" hint="For people to read"><input value=${name} onInput=${(event) => setName(event.target.value)} autocomplete="off" /><//>
          <div class="wide stack"><${ScopeMatrix} scopes=${scopes} onChange=${setScopes} /></div>
          <footer><${Action} kind="primary" label="Create client" request=${request} onDone=${setMade} /></footer>
        </div>`}
  <//>`;
}
