// Who is asking: nobody in particular without authentication, otherwise a client with a token.
// The secret is kept in memory alone, to renew the token; the token too, or in this tab when that is wished.

import {signal} from "./ui.js";

const ROOT = new URL(".", document.baseURI);
const KEPT = "fastpubsub.token";
const EVERYTHING = "*";
const RENEW_AT = 0.8;
const LONGEST_TIMER = 2 ** 31 - 1;

/** state: asking | open | login | in | away */
export const session = signal({state: "asking", scopes: []});

let credentials, token, timer;

export const isAuthenticationOn = () => session.value.state !== "open";
export const authorization = () => (token ? {Authorization: `Bearer ${token}`} : {});

export async function begin() {
  try {
    const answer = await fetch(ROOT, {headers: {Accept: "application/json"}, cache: "no-store", credentials: "omit"});
    const about = await answer.json();
    if (!answer.ok) throw new Error(about.detail);
    if (about.is_authentication_on) comeBack(about.version);
    else session.value = {state: "open", scopes: [EVERYTHING], version: about.version};
  } catch (error) {
    session.value = {state: "away", scopes: [], note: error.message};
  }
}

function comeBack(version) {
  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
  if (kept && kept.until > Date.now()) {
    token = kept.token;
    session.value = {state: "in", scopes: kept.scopes, client: kept.client, version};
  } else {
    session.value = {state: "login", scopes: [], version};
  }
}

export async function logIn(clientId, secret, isKept) {
  const got = await issue({client_id: clientId, client_secret: secret});
  credentials = {client_id: clientId, client_secret: secret, isKept};
  take(got);
}

async function issue(wanted) {
  const answer = await fetch(new URL("oauth/token", ROOT), {
    method: "POST",
    headers: {"Content-Type": "application/json", Accept: "application/json"},
    body: JSON.stringify({client_id: wanted.client_id, client_secret: wanted.client_secret}),
    credentials: "omit",
  });
  const got = await answer.json();
  if (!answer.ok) throw new Error(got.detail ?? got.error_description ?? `the server answered ${answer.status}`);
  return got;
}

function take(got) {
  token = got.access_token;
  const scopes = got.scope.split(" ").filter(Boolean);
  const client = credentials.client_id;
  if (credentials.isKept) {
    const until = Date.now() + got.expires_in * 1000;
    sessionStorage.setItem(KEPT, JSON.stringify({token, scopes, client, until}));
  }
  session.value = {state: "in", scopes, client, version: session.value.version};
  clearTimeout(timer);
  timer = setTimeout(renewed, Math.min(got.expires_in * 1000 * RENEW_AT, LONGEST_TIMER));
}

let renewing;

/** Whether there is another token now. Requests that were refused at once share the answer. */
export function renewed() {
  if (session.value.state !== "in") return false;
  renewing ??= renew().finally(() => (renewing = undefined));
  return renewing;
}

async function renew() {
  if (credentials) {
    try {
      take(await issue(credentials));
      return true;
    } catch (error) {
      logOut(`The token could not be renewed: ${error.message}.`);
      return false;
    }
  }
  logOut("The token has expired. Log in again to go on here.");
  return false;
}

export function logOut(note) {
  credentials = token = undefined;
  clearTimeout(timer);
  sessionStorage.removeItem(KEPT);
  session.value = {state: "login", scopes: [], note, version: session.value.version};
}

/** Whether the scopes allow it: on this object, or without one on any. */
export function can(verb, id) {
  const {scopes} = session.value;
  if (scopes.includes(EVERYTHING) || scopes.includes(verb)) return true;
  return id === undefined ? scopes.some((one) => one.startsWith(`${verb}:`)) : scopes.includes(`${verb}:${id}`);
}
