// What every component is made of.

import {h} from "preact";
import htm from "htm";

export {render} from "preact";
export {useEffect, useLayoutEffect, useMemo, useRef, useState} from "preact/hooks";
export {computed, signal} from "@preact/signals";

export const html = htm.bind(h);
