// Lists page by page: by the key of the server where it gives one, otherwise by offset. The page is in the address.

import {html} from "../lib/ui.js";
import {here, route} from "../lib/router.js";

/** The parameters of the page in the address. */
export const pageOf = ({page_token, offset}) => (page_token ? {page_token} : offset ? {offset} : {});

export function Pager({answer, limit}) {
  const {page_token: token, offset = 0} = route.value.query;
  const next = answer.next_page_token
    ? {page_token: answer.next_page_token, offset: undefined}
    : !token && answer.data.length === limit ? {offset: Number(offset) + limit} : null;
  if (!next && !token && !Number(offset)) return null;
  return html`<nav class="pager" aria-label="Pages">
    <a href=${here({page_token: undefined, offset: undefined})}>First</a>
    <button type="button" class="quiet" onClick=${() => history.back()}>Back</button>
    ${next ? html`<a class="next" href=${here(next)}>Next ${limit}</a>` : html`<span class="muted">That is all.</span>`}
  </nav>`;
}
