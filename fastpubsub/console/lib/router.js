// The address is the state: #/topics/orders?tab=live can be sent to a colleague.

import {signal} from "./ui.js";

const read = () => {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return {path: path.split("/").filter(Boolean).map(decoded), query: Object.fromEntries(new URLSearchParams(query))};
};

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export const route = signal(read());
addEventListener("hashchange", () => (route.value = read()));

export function href(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const search = new URLSearchParams(given).toString();
  return `#/${path.map(encodeURIComponent).join("/")}${search ? `?${search}` : ""}`;
}

/** The address of this page with other parameters. */
export const here = (changes) => href(route.value.path, {...route.value.query, ...changes});

export const go = (address) => (location.hash = address);

/** Without a new entry in the history, for what is typed. */
export function amend(changes) {
  history.replaceState(null, "", here(changes));
  route.value = read();
}
