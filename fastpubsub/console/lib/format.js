// Numbers and times for people.

const whole = new Intl.NumberFormat("en-US");
const short = new Intl.NumberFormat("en-US", {notation: "compact", maximumFractionDigits: 1});
const perSecond = new Intl.NumberFormat("en-US", {maximumSignificantDigits: 3, maximumFractionDigits: 1});
const local = new Intl.DateTimeFormat("en-GB", {
  day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit",
});

export const count = (value) => (value === undefined || value === null ? "–" : whole.format(value));

export const compact = (value) => (value < 100000 ? count(value) : short.format(value));

export const rate = (value) => (value === undefined || value === null ? "–" : `${perSecond.format(value)}/s`);

export const localTime = (text) => local.format(new Date(text));

export const utcTime = (text) => `${new Date(text).toISOString().replace("T", " ").replace("Z", "")} UTC`;

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

/** 7321 → "2 h". */
export function duration(seconds) {
  if (seconds === undefined || seconds === null) return "–";
  const [size, name] = UNITS.find(([size]) => seconds >= size) ?? [1, "s"];
  return `${Math.floor(Math.max(seconds, 0) / size)} ${name}`;
}

export function ago(text) {
  const seconds = (Date.now() - new Date(text)) / 1000;
  return seconds < 0 ? `in ${duration(-seconds)}` : `${duration(seconds)} ago`;
}

export const plural = (number, one, several = `${one}s`) => `${count(number)} ${number === 1 ? one : several}`;
