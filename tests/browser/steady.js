// For pictures: moves what the console reads to a day of its own, so that the same shop always has the same times and ids.
// MOVED and HISTORY_MOVED are milliseconds, filled in for each page.
(() => {
  const THEN = Date.UTC(2026, 5, 17, 14, 30);
  const began = performance.now();
  Date.now = () => THEN + performance.now() - began;

  const TIME = /\b\d{4}-\d\d-\d\dT\d\d:\d\d:[\d.]+Z/g;
  const MESSAGE_ID = /\b([0-9a-f]{8})-([0-9a-f]{4})(?=-7[0-9a-f]{3}-)/g;
  const hex = (number) => number.toString(16).padStart(12, "0").replace(/^(.{8})/, "$1-");
  const movedIds = (text, by) => text.replace(MESSAGE_ID, (_, high, low) => hex(parseInt(high + low, 16) + by));
  const earlier = (text) => movedIds(text, -MOVED).replace(TIME, (time) => new Date(Date.parse(time) - MOVED).toISOString());
  const earlierTimes = (text) =>
    text.replace(/"times": ?\[[^\]]*\]/, (times) => times.replace(/\d+/g, (one) => String(one - HISTORY_MOVED / 1000)));

  const {fetch} = window;
  window.fetch = async (resource, {body, ...options} = {}) => {
    const url = new URL(movedIds(String(resource), MOVED), location.href);
    const from = Number(url.searchParams.get("from"));
    if (url.pathname.endsWith("/history")) url.searchParams.set("from", from + HISTORY_MOVED / 1000);
    const answer = await fetch.call(window, url, {...options, body: body && movedIds(body, MOVED)});
    if (answer.headers.get("content-type")?.startsWith("text/event-stream")) return new Response(streamed(answer.body), answer);
    const text = await answer.text();
    return new Response(text ? earlierTimes(earlier(text)) : null, answer);
  };

  const streamed = (body) => body
    .pipeThrough(new TextDecoderStream())
    .pipeThrough(new TransformStream({transform: (text, controller) => controller.enqueue(earlier(text))}))
    .pipeThrough(new TextEncoderStream());
})();
