// What is typed, as the API takes it; what is wrong with it is said in the words of the form.

import {parse} from "../lib/json.js";

export function wholeOrNull(text, name) {
  if (String(text).trim() === "") return null;
  if (!/^\d+$/.test(String(text).trim())) throw new Error(`${name} must be a whole number.`);
  return Number(text);
}

export function numberOrNull(text, name) {
  if (String(text).trim() === "") return null;
  if (!/^\d+(\.\d+)?$/.test(String(text).trim())) throw new Error(`${name} must be a number.`);
  return Number(text);
}

export function whole(text, name) {
  const value = wholeOrNull(text, name);
  if (value === null) throw new Error(`${name} must be given.`);
  return value;
}

/** JSON, or null for nothing. */
export function objectOrNull(text, name) {
  if (text.trim() === "") return null;
  try {
    return parse(text);
  } catch (error) {
    throw new Error(`${name} is not JSON: ${error.message}`);
  }
}
