import {html} from "../lib/ui.js";
import {copy} from "./action.js";

/** A secret, of a client with its id, which the server shows this once. */
export const Secret = ({id, secret}) => html`<div class="wide secret-once" role="status">
  <p><strong>This is the only time that the secret is shown.</strong> Keep it now.</p>
  ${id ? html`<p class="secret"><span class="muted">Client id</span> <code>${id}</code><button type="button" class="quiet" onClick=${() => copy(id, "the client id")}>Copy</button></p>` : null}
  <p class="secret"><span class="muted">Secret</span> <code>${secret}</code><button type="button" class="quiet" onClick=${() => copy(secret, "the secret")}>Copy</button></p>
</div>`;
