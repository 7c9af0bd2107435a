// Rows that change while one looks at them stand still while the mouse is on them, or the focus of the keyboard in them.

import {useRef, useState} from "./ui.js";

/** [what to show, attributes of the element that holds it]. A finger holds nothing: it would never let go. */
export function useHeld(value) {
  const shown = useRef(value);
  const [isHeld, setHeld] = useState(false);
  if (!isHeld) shown.current = value;
  return [shown.current, {
    onPointerEnter: ({pointerType}) => setHeld(pointerType === "mouse"),
    onPointerLeave: () => setHeld(false),
    onFocusIn: ({target}) => target.matches(":focus-visible") && setHeld(true),
    onFocusOut: ({currentTarget, relatedTarget}) => setHeld(currentTarget.matches(":hover") || currentTarget.contains(relatedTarget)),
  }];
}
