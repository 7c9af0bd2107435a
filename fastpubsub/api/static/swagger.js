"use strict";

const LOGIN = "fastpubsub.docs.login";
const STREAM_SECONDS = 5;
const TAKING = { ackMessages: (ids) => ids, nackMessages: (ids) => ids, settleAndPull: (ids) => ({ acks: ids }) };
TAKING.rejectMessages = (ids) => ({ ids, reason: "the order does not exist" });
TAKING.extendLeases = (ids) => ({ ids, extend_seconds: 60 });

function pathOf(url) {
  return new URL(url, location.href).pathname;
}

// Swagger sends the client of "Authorize" by HTTP Basic, and after a wrong secret browsers would ask with a dialog of
// their own. In the form it is told on the page.
function sendClientInForm(request) {
  const [scheme, credentials] = (request.headers.Authorization || "").split(" ");
  if (scheme === "Basic") {
    const [id, ...secret] = atob(credentials).split(":");
    const client = new URLSearchParams({ client_id: id, client_secret: secret.join(":") });
    request.body = `${request.body}&${client}`;
    delete request.headers.Authorization;
  }
  return request;
}

// Swagger waits for the end of an answer, and a stream has none.
async function beginningOf(url, options) {
  const leaving = new AbortController();
  const timer = setTimeout(() => leaving.abort(), STREAM_SECONDS * 1000);
  const said = [];
  try {
    const answer = await fetch(url, { ...options, signal: leaving.signal });
    const { status, headers } = answer;
    if (!answer.ok) return answer;
    try {
      const decoder = new TextDecoder();
      for (const reader = answer.body.getReader(); ; ) {
        const { done, value } = await reader.read();
        if (done) break;
        said.push(decoder.decode(value, { stream: true }));
      }
    } catch (error) {
      if (!leaving.signal.aborted) throw error;
      const curl = `curl -N "${new URL(url, location.href)}"`;
      said.push(`\n: This stream has no end. This page closed it after ${STREAM_SECONDS} seconds; to go on, use: ${curl}\n`);
    }
    return new Response(said.join(""), { status, headers });
  } finally {
    clearTimeout(timer);
  }
}

function prepared(request) {
  if (pathOf(request.url).endsWith("/stream")) request.userFetch = beginningOf;
  return sendClientInForm(request);
}

// What was pulled is what somebody wants to settle next.
function offerPulled(response) {
  if (!response.ok || !/\/subscriptions\/[^/]+\/(messages|pulls)$/.test(pathOf(response.url))) return response;
  const ids = ((response.body || JSON.parse(response.text || "{}")).data || []).map((message) => message.id);
  if (ids.length) offer(ids);
  return response;
}

function offer(ids) {
  const { specSelectors, oas3Actions, specActions } = window.ui.getSystem();
  const document = specSelectors.specJson().toJS();
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const [method, { operationId, requestBody, parameters }] of Object.entries(methods)) {
      const body = TAKING[operationId] && TAKING[operationId](ids);
      if (body) {
        // Operations that are opened later take the example, the others have the text already.
        requestBody.content["application/json"].example = body;
        oas3Actions.setRequestBodyValue({ value: JSON.stringify(body, null, 2), pathMethod: [path, method] });
      }
      for (const parameter of parameters || []) {
        if (parameter.name !== "message_id") continue;
        parameter.example = ids[0];
        specActions.changeParam([path, method], "message_id", "path", ids[0]);
      }
    }
  }
  specActions.updateJsonSpec(document);
}

// The login lasts as long as the tab; what is kept has the token, without the secret.
function keepLogin(system) {
  const kept = {};
  for (const [name, { token, schema }] of Object.entries(system.authSelectors.authorized().toJS())) {
    kept[name] = { token, schema, name };
  }
  sessionStorage.setItem(LOGIN, JSON.stringify(kept));
}

function keeping(original, system) {
  return (...given) => {
    const result = original(...given);
    keepLogin(system);
    return result;
  };
}

const KEPT_LOGIN = { statePlugins: { auth: { wrapActions: { authorizeOauth2: keeping, logout: keeping } } } };

function restoreLogin() {
  const kept = JSON.parse(sessionStorage.getItem(LOGIN) || "{}");
  for (const { token, ...auth } of Object.values(kept)) window.ui.authActions.authorizeOauth2({ auth, token });
}

// Addresses are relative, so that the page also works behind a path prefix.
window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  requestInterceptor: prepared,
  responseInterceptor: offerPulled,
  onComplete: restoreLogin,
  plugins: [KEPT_LOGIN],
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
});
