// What a page has asked the server for, and asks again while it is looked at.

import {useEffect, useRef, useState} from "./ui.js";
import {Refused} from "./api.js";

const EMPTY = {data: undefined, error: undefined};

/** `load` gets a signal that ends it; `every` is in milliseconds. Another `version` asks again; what was read stays until then. */
export function useResource(load, inputs, {every = 0, version} = {}) {
  const [state, set] = useState(EMPTY);
  const again = useRef();
  useEffect(() => {
    const controller = new AbortController();
    let timer, runs = 0;
    async function run() {
      clearTimeout(timer);
      const number = (runs += 1);
      const isCurrent = () => number === runs && !controller.signal.aborted;
      try {
        const data = await load(controller.signal);
        if (isCurrent()) set({data, error: undefined});
      } catch (error) {
        if (isCurrent()) set(({data}) => ({data, error}));
      }
      if (every && isCurrent()) timer = setTimeout(tick, every);
    }
    function tick() {
      if (document.hidden) timer = setTimeout(tick, every);
      else run();
    }
    set(EMPTY);
    again.current = run;
    run();
    return () => {
      controller.abort();
      clearTimeout(timer);
    };
  }, inputs);
  const before = useRef(version);
  useEffect(() => {
    if (before.current !== version) again.current?.();
    before.current = version;
  }, [version]);
  return {...state, reload: () => again.current?.()};
}

/** null where this server has no such part, so that a page can leave it out. */
export async function optional(promise) {
  try {
    return await promise;
  } catch (error) {
    if (error instanceof Refused && error.isMissing) return null;
    throw error;
  }
}
