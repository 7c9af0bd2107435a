// Shows scopes as a matrix, and changes them.

import {html} from "../lib/ui.js";
import {EVERYTHING, idsOf, MATRIX, others, split, VERBS} from "../lib/scopes.js";
import {Field} from "./basics.js";

/** Without `onChange` it only shows. */
export function ScopeMatrix({scopes, onChange}) {
  const isAll = scopes.includes(EVERYTHING);
  const toggle = (scope) => onChange(scopes.includes(scope) ? scopes.filter((one) => one !== scope) : [...scopes, scope]);
  return html`
    <label class="check"><input type="checkbox" checked=${isAll} disabled=${!onChange} onChange=${() => toggle(EVERYTHING)} /> <span>Everything (<code>*</code>)</span></label>
    <div class="scroll" tabindex="0" role="region" aria-label="Scopes"><table class="matrix">
      <thead><tr><th scope="col">May</th>${VERBS.map((verb) => html`<th scope="col" key=${verb}>${verb}</th>`)}</tr></thead>
      <tbody>${Object.entries(MATRIX).map(([resource, verbs]) => html`<tr key=${resource}>
        <th scope="row">${resource}</th>
        ${VERBS.map((verb) => html`<td key=${verb}>${verbs.includes(verb) ? html`<${Cell} ...${{resource, verb, scopes, isAll, toggle, isFixed: !onChange}} />` : null}</td>`)}
      </tr>`)}</tbody>
    </table></div>
    ${onChange
      ? html`<${Field} isWide label="For single objects" hint="Such as topics:publish:orders, separated by spaces">
          <input value=${others(scopes).join(" ")} onChange=${(event) => onChange([...scopes.filter((one) => !others([one]).length), ...split(event.target.value)])} spellcheck=${false} autocomplete="off" />
        <//>`
      : null}
  `;
}

function Cell({resource, verb, scopes, isAll, toggle, isFixed}) {
  const scope = `${resource}:${verb}`;
  const ids = idsOf(scopes, resource, verb);
  const box = html`<input type="checkbox" aria-label=${scope} checked=${isAll || scopes.includes(scope)} disabled=${isFixed || isAll} onChange=${() => toggle(scope)} />`;
  return ids.length ? html`${box} <small title=${ids.join(", ")}>${ids.length === 1 ? ids[0] : `${ids.length} ids`}</small>` : box;
}
