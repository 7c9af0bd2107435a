// Says while one types what of a JSON Schema a payload does not match. It knows the common words; the server knows all.

import {isNumber, isObject} from "./json.js";

const MOST = 5;

/** [{pointer, message}] of at most five places. */
export function mismatches(schema, value) {
  const found = [];
  try {
    check(schema, value, "", schema, found);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // references that lead to each other: the server says what it thinks of them
  }
  return found.slice(0, MOST);
}

const typeOf = (value) => {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  if (isNumber(value)) return "number";
  return typeof value;
};

function hasType(value, type) {
  return type === "integer" ? isNumber(value) && Number.isInteger(plain(value)) : typeOf(value) === type;
}

const plain = (value) => (JSON.isRawJSON?.(value) ? Number(value.rawJSON) : value);
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
const isFine = (schema, value, root) => {
  const found = [];
  check(schema, value, "", root, found);
  return found.length === 0;
};

function check(schema, value, pointer, root, found) {
  const say = (message) => found.push({pointer, message});
  if (schema === true || found.length > MOST) return;
  if (schema === false) return void say("is not allowed");
  if (!isObject(schema)) return;
  if (schema.$ref?.startsWith("#")) check(referred(root, schema.$ref), value, pointer, root, found);
  const types = [schema.type ?? []].flat();
  if (types.length && !types.some((type) => hasType(value, type))) return void say(`must be ${types.join(" or ")}`);
  if (schema.enum && !schema.enum.some((one) => same(one, value))) say(`must be one of ${schema.enum.map((one) => JSON.stringify(one)).join(", ")}`);
  if ("const" in schema && !same(schema.const, value)) say(`must be ${JSON.stringify(schema.const)}`);
  if (isNumber(value)) checkNumber(schema, plain(value), say);
  if (typeof value === "string") checkString(schema, value, say);
  if (Array.isArray(value)) checkArray(schema, value, pointer, root, found, say);
  else if (isObject(value)) checkObject(schema, value, pointer, root, found, say);
  checkCombined(schema, value, pointer, root, found, say);
}

function checkNumber(schema, value, say) {
  if (value < schema.minimum) say(`must be at least ${schema.minimum}`);
  if (value > schema.maximum) say(`must be at most ${schema.maximum}`);
  if (value <= schema.exclusiveMinimum) say(`must be more than ${schema.exclusiveMinimum}`);
  if (value >= schema.exclusiveMaximum) say(`must be less than ${schema.exclusiveMaximum}`);
}

function checkString(schema, value, say) {
  const {length} = [...value];
  if (length < schema.minLength) say(`must have at least ${schema.minLength} characters`);
  if (length > schema.maxLength) say(`must have at most ${schema.maxLength} characters`);
}

function checkArray(schema, value, pointer, root, found, say) {
  if (value.length < schema.minItems) say(`must have at least ${schema.minItems} items`);
  if (value.length > schema.maxItems) say(`must have at most ${schema.maxItems} items`);
  const first = schema.prefixItems ?? [];
  value.forEach((item, index) => check(first[index] ?? schema.items ?? true, item, `${pointer}/${index}`, root, found));
}

function checkObject(schema, value, pointer, root, found, say) {
  for (const name of schema.required ?? []) if (!Object.hasOwn(value, name)) say(`lacks ${JSON.stringify(name)}`);
  for (const [name, item] of Object.entries(value)) {
    const own = Object.hasOwn(schema.properties ?? {}, name) ? schema.properties[name] : undefined;
    const fallback = schema.patternProperties ? true : (schema.additionalProperties ?? true);
    check(own ?? fallback, item, `${pointer}/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`, root, found);
  }
}

function checkCombined(schema, value, pointer, root, found, say) {
  for (const one of schema.allOf ?? []) check(one, value, pointer, root, found);
  if (schema.anyOf && !schema.anyOf.some((one) => isFine(one, value, root))) say("matches none of anyOf");
  if (schema.oneOf && schema.oneOf.filter((one) => isFine(one, value, root)).length !== 1) say("must match exactly one of oneOf");
  if (schema.not !== undefined && isFine(schema.not, value, root)) say("matches what must not be");
}

/** What a reference such as #/$defs/name leads to; anything where it cannot be followed here. */
function referred(root, reference) {
  let found = root;
  for (const part of reference.slice(1).split("/").filter(Boolean)) {
    const name = decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~");
    if (!isObject(found) || !Object.hasOwn(found, name)) return true;
    found = found[name];
  }
  return found === root ? true : found;
}
