// A box whose text is in the address.

import {html, useEffect, useRef, useState} from "../lib/ui.js";
import {amend, route} from "../lib/router.js";

const PAUSE = 250;

export function Search({label, placeholder, name = "q"}) {
  const given = route.value.query[name] ?? "";
  const [typed, setTyped] = useState(given);
  const timer = useRef();
  useEffect(() => setTyped(given), [given]);
  const apply = (text) => amend({[name]: text, page_token: undefined, offset: undefined});
  const type = (event) => {
    const text = event.target.value;
    setTyped(text);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => apply(text), PAUSE);
  };
  return html`<input type="search" class="search" aria-label=${label} placeholder=${placeholder ?? label} value=${typed} onInput=${type} spellcheck=${false} autocomplete="off" />`;
}
