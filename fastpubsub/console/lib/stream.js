// Server-Sent Events with a token, which EventSource cannot send; it comes back by itself after what it saw last.

import {fetched, Refused} from "./api.js";
import {parse} from "./json.js";

const PAUSE = 1000;

/** Calls `onEvent({event, id, data})` until the signal ends it. */
export async function follow(request, onEvent, onState, signal) {
  let last;
  while (!signal.aborted) {
    try {
      const headers = {Accept: "text/event-stream", ...(last ? {"Last-Event-ID": last} : {})};
      const answer = await fetched({...request, query: last ? {} : request.query, headers}, signal);
      if (!answer.ok) throw new Refused(answer.status, await answer.json());
      onState("live");
      for await (const event of events(answer.body)) {
        last = event.id ?? last;
        if (event.data !== undefined) onEvent({...event, data: parse(event.data)});
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.status < 500) return onState("refused", error);
    }
    if (signal.aborted) return;
    onState("away");
    await new Promise((resume) => setTimeout(resume, PAUSE));
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ""; ; ) {
    const {value, done} = await reader.read();
    if (done) return;
    const parts = (text += value).split("\n\n");
    text = parts.pop();
    yield* parts.map(eventOf);
  }
}

function eventOf(text) {
  const event = {event: "message"};
  for (const line of text.split("\n")) {
    const [, name, value] = /^([^:]+): ?(.*)$/s.exec(line) ?? [];
    if (name === "data") event.data = event.data === undefined ? value : `${event.data}\n${value}`;
    else if (name) event[name] = value;
  }
  return event;
}
