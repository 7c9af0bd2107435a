// JSON that loses no digit. JavaScript has no number for 12345678901234567890 or 1.10: these stay as they are written.

export const parse = (text) => JSON.parse(text, asWritten);

function asWritten(_name, value, context) {
  if (typeof value !== "number" || context?.source === undefined || JSON.rawJSON === undefined) return value;
  return String(value) === context.source ? value : JSON.rawJSON(context.source);
}

export const isNumber = (value) => typeof value === "number" || Boolean(JSON.isRawJSON?.(value));

export const isObject = (value) => typeof value === "object" && value !== null && !JSON.isRawJSON?.(value);

export const oneLine = (value) => JSON.stringify(value) ?? "";

export const pretty = (value) => JSON.stringify(value, null, 2) ?? "";

const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],:]|[^\s{}[\],:"]+/g;

/** The text of a member of the outermost object, byte for byte; undefined when it is not there. */
export function rawMember(text, name) {
  const wanted = JSON.stringify(name);
  let depth = 0, isKey = false, start;
  for (const {0: token, index} of text.matchAll(TOKEN)) {
    if (start !== undefined && depth === 1 && (token === "," || token === "}")) return text.slice(start, index).trim();
    if (depth === 1 && isKey && token === wanted) start = text.indexOf(":", index + token.length) + 1;
    if (token === "{" || token === "[") depth += 1;
    if (token === "}" || token === "]") depth -= 1;
    isKey = depth === 1 && (token === "{" || token === ",");
  }
  return undefined;
}
