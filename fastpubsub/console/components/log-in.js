// Asks for the id and the secret of a client.

import {html, useEffect, useRef, useState} from "../lib/ui.js";
import {logIn, session} from "../lib/session.js";
import {Field, Problem} from "./basics.js";

export function LogIn() {
  const [error, setError] = useState();
  const [isBusy, setBusy] = useState(false);
  const first = useRef();
  useEffect(() => {
    document.title = "Log in · fastpubsub";
    first.current.focus();
  }, []);
  async function submit(event) {
    event.preventDefault();
    const {client_id, client_secret, kept} = event.target.elements;
    setBusy(true);
    setError(undefined);
    try {
      await logIn(client_id.value.trim(), client_secret.value.trim(), kept.checked);
    } catch (refused) {
      setError(refused);
      setBusy(false);
    }
  }
  return html`<main class="alone">
    <form class="login" onSubmit=${submit}>
      <p class="brand"><span class="mark" aria-hidden="true"></span>fastpubsub</p>
      <h1>Log in</h1>
      ${session.value.note ? html`<p class="note">${session.value.note}</p>` : null}
      <${Field} label="Client id"><input ref=${first} name="client_id" required autocomplete="username" spellcheck=${false} /><//>
      <${Field} label="Client secret"><input name="client_secret" type="password" required autocomplete="current-password" /><//>
      <label class="check"><input type="checkbox" name="kept" /> Remember in this tab until the token expires</label>
      <${Problem} error=${error} />
      <button class="primary" disabled=${isBusy}>${isBusy ? "Checking…" : "Log in"}</button>
      <p class="muted">The console can do what the scopes of the client allow. To make a client, run <code>fastpubsub create_client NAME SCOPES</code> on the server.</p>
    </form>
  </main>`;
}
