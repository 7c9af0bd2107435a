// Requests to the API. A request is an object, so that what a button does can also be shown as a command:
// {method, path, query, body, text, exact}; `text` is a body that is sent as it was typed, `exact` keeps all digits.

import {parse} from "./json.js";
import {authorization, renewed, isAuthenticationOn} from "./session.js";

const ROOT = new URL(".", document.baseURI);

/** at`/topics/${id}`: a path whose parts are encoded. */
export const at = (strings, ...ids) => String.raw({raw: strings}, ...ids.map(encodeURIComponent));

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `the server answered ${status}`);
    this.status = status;
    this.problem = problem;
  }

  /** Whether this server has no such part: it is older than the console, or the part is turned off. */
  get isMissing() {
    return this.status === 405 || (this.status === 404 && this.message === "there is nothing at this path");
  }
}

export function address({path, query = {}}) {
  const url = new URL(path.slice(1), ROOT);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

const bodyOf = ({body, text}) => text ?? (body === undefined ? undefined : JSON.stringify(body));

export async function fetched(request, signal) {
  const body = bodyOf(request);
  const options = () => ({
    method: request.method ?? "GET",
    headers: {
      Accept: "application/json",
      ...(body === undefined ? {} : {"Content-Type": "application/json"}),
      ...request.headers,
      ...authorization(),
    },
    body,
    signal,
    cache: "no-store",
    credentials: "omit",
  });
  const url = address(request);
  let answer = await fetch(url, options());
  if (answer.status === 401 && (await renewed())) answer = await fetch(url, options());
  return answer;
}

/** Answers the parsed body, or null for none. */
export async function send(request, signal) {
  const text = await sendForText(request, signal);
  return text === "" ? null : (request.exact ? parse : JSON.parse)(text);
}

export async function sendForText(request, signal) {
  const answer = await fetched(request, signal);
  const text = await answer.text();
  if (!answer.ok) throw new Refused(answer.status, problemOf(text));
  return text;
}

function problemOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

export const get = (path, query, signal) => send({path, query}, signal);

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** The request as a command. It names the token, and does not contain it. */
export function curl(request) {
  const parts = ["curl"];
  if ((request.method ?? "GET") !== "GET") parts.push(`-X ${request.method}`);
  parts.push(quoted(address(request).href));
  if (isAuthenticationOn()) parts.push('-H "Authorization: Bearer $TOKEN"');
  for (const [name, value] of Object.entries(request.headers ?? {})) parts.push(`-H ${quoted(`${name}: ${value}`)}`);
  const body = bodyOf(request);
  if (body !== undefined) parts.push("-H 'Content-Type: application/json'", `-d ${quoted(body)}`);
  return parts.join(" ");
}
