// Durations in seconds, minutes, hours or days.

const SECOND = { inSeconds: 1, symbol: "s", name: "second" };
const UNITS = [
  { inSeconds: 86400, symbol: "d", name: "day" },
  { inSeconds: 3600, symbol: "h", name: "hour" },
  { inSeconds: 60, symbol: "min", name: "minute" },
];

// Returns the largest unit that fits twice into a duration: 90 s, 2 min, 24 h.
export const unitOf = (seconds) => UNITS.find(({ inSeconds }) => seconds >= 2 * inSeconds) ?? SECOND;

// Returns "24 h". Pass a unit to make several durations comparable.
export const duration = (seconds, unit = unitOf(seconds)) => `${rounded(seconds / unit.inSeconds)} ${unit.symbol}`;

// Returns "24 hours".
export function durationInWords(seconds) {
  const unit = unitOf(seconds);
  const number = rounded(seconds / unit.inSeconds);
  return `${number} ${unit.name}${number === 1 ? "" : "s"}`;
}

// Returns "3.0 s", which keeps its width while it runs down.
export function timeLeft(seconds) {
  const left = Math.max(seconds, 0);
  const unit = unitOf(left);
  const number = left / unit.inSeconds;
  return `${number.toFixed(number < 100 ? 1 : 0)} ${unit.symbol}`;
}

const rounded = (number) => (number < 100 ? Number(number.toPrecision(3)) : Math.round(number));
