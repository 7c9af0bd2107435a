// The scopes of a client as a matrix: what it may do, with what. The order is that of the documentation.

export const EVERYTHING = "*";

export const MATRIX = {
  topics: ["create", "read", "delete", "publish", "consume"],
  subscriptions: ["create", "read", "delete", "consume"],
  messages: ["read"],
  clients: ["create", "read", "update", "delete"],
  metrics: ["read"],
  audit: ["read"],
};

export const VERBS = ["create", "read", "update", "delete", "publish", "consume"];

export const split = (text) => text.split(" ").filter(Boolean);

/** Those that are no cell of the matrix: for single objects, and what this console does not know. */
export const others = (scopes) => scopes.filter((scope) => scope !== EVERYTHING && !isCell(scope));

function isCell(scope) {
  const [resource, verb, ...rest] = scope.split(":");
  return rest.length === 0 && Boolean(MATRIX[resource]?.includes(verb));
}

/** The ids that a verb is allowed on, beside all. */
export const idsOf = (scopes, resource, verb) => scopes.filter((scope) => scope.startsWith(`${resource}:${verb}:`)).map((scope) => scope.slice(resource.length + verb.length + 2));
