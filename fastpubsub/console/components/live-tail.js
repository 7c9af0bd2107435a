// What is published now, at the top; nothing is leased or settled. Drawn at most once a frame, whatever comes.

import {html, useEffect, useRef, useState} from "../lib/ui.js";
import {at} from "../lib/api.js";
import {plural} from "../lib/format.js";
import {follow} from "../lib/stream.js";
import {Curl} from "./action.js";
import {Empty, Loading, Problem} from "./basics.js";
import {MessageTable} from "./topic-messages.js";

const KEPT = 200;
const RECENT = 20;
const QUIET = 1000;
const WORDS = {opening: "Connecting…", live: "Live", away: "Connecting again…", refused: "Refused", paused: "Paused"};

export function LiveTail({id}) {
  const [{messages, seen}, setShown] = useState({messages: [], seen: 0});
  const [{state, error}, setState] = useState({state: "opening"});
  const [isPaused, setPaused] = useState(false);
  const [isQuiet, setQuiet] = useState(false);
  const request = () => ({path: at`/topics/${id}/stream`, query: {recent: RECENT}});

  useEffect(() => {
    const timer = setTimeout(() => setQuiet(true), QUIET);
    return () => clearTimeout(timer);
  }, []);

  useEffect(() => {
    if (isPaused) return setState({state: "paused"});
    const controller = new AbortController();
    let waiting = [], frame;
    const draw = () => {
      const came = waiting.reverse();
      waiting = [];
      frame = undefined;
      setShown(({messages, seen}) => ({messages: [...came, ...messages].slice(0, KEPT), seen: seen + came.length}));
    };
    const take = ({event, data}) => {
      if (event !== "message") return;
      waiting.push(data);
      if (waiting.length > KEPT) waiting.shift();
      frame ??= requestAnimationFrame(draw);
    };
    follow(request(), take, (state, error) => setState({state, error}), controller.signal);
    return () => {
      controller.abort();
      if (frame) cancelAnimationFrame(frame);
    };
  }, [id, isPaused]);

  return html`
    <div class="toolbar">
      <span class=${`state ${state === "live" ? "leased" : "waiting"}`} role="status">${WORDS[state]}</span>
      <span class="muted number">${plural(seen, "message")}</span>
      <button type="button" class="push" aria-pressed=${isPaused} onClick=${() => setPaused(!isPaused)}>${isPaused ? "Resume" : "Pause"}</button>
      <${Curl} request=${request} />
    </div>
    <${Problem} error=${error} />
    ${messages.length ? html`<${MessageTable} messages=${messages} />` : !isQuiet ? html`<${Loading} />` : html`<${Empty} title="Nothing was published yet"><p>Messages appear here as they are published. Following a topic takes none away from its consumers.</p><//>`}
  `;
}
