// Rows that change while one looks at them stand still while the mouse or the focus is on them.

import {useRef, useState} from "./ui.js";

/** [what to show, attributes of the element that holds it]. */
export function useHeld(value) {
  const shown = useRef(value);
  const [isHeld, setHeld] = useState(false);
  if (!isHeld) shown.current = value;
  const leave = ({currentTarget, relatedTarget}) => setHeld(currentTarget.matches(":hover") || currentTarget.contains(relatedTarget));
  return [shown.current, {onMouseEnter: () => setHeld(true), onFocusIn: () => setHeld(true), onMouseLeave: leave, onFocusOut: leave}];
}
