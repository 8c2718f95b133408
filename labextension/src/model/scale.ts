// The visible part of the timeline's axis, and how its units become pixels.

/** A window on the axis, in units. */
export interface Window {
  from: number;
  to: number;
}

/** From units to pixels of a plot. */
export interface Scale {
  x: (unit: number) => number;
  /** Pixels for one unit. */
  perUnit: number;
  window: Window;
  width: number;
}

/** Pixels on both sides that no event stands in. */
const PAD = 14;

/** The scale that shows `window` in a plot of `width` pixels. */
export function scaleOf(window: Window, width: number): Scale {
  const perUnit = Math.max(1, width - 2 * PAD) / (window.to - window.from);
  return { x: (unit) => PAD + (unit - window.from) * perUnit, perUnit, window, width };
}

/** The window with what stands in the plot's margins. */
export function withMargins({ window, perUnit }: Scale): Window {
  return { from: window.from - PAD / perUnit, to: window.to + PAD / perUnit };
}

const SMALLEST_WINDOW = 2;

/** The window zoomed by `factor` (below 1: nearer) about the unit `at`, kept on the axis. */
export function zoom(window: Window, factor: number, at: number, extent: number): Window {
  const size = window.to - window.from;
  const wanted = Math.min(extent, Math.max(Math.min(SMALLEST_WINDOW, extent), size * factor));
  const share = size === 0 ? 0.5 : (at - window.from) / size;
  return keep({ from: at - wanted * share, to: at - wanted * share + wanted }, extent);
}

/** The window moved by `units`, kept on the axis. */
export function pan(window: Window, units: number, extent: number): Window {
  return keep({ from: window.from + units, to: window.to + units }, extent);
}

function keep(window: Window, extent: number): Window {
  const size = Math.min(window.to - window.from, extent);
  const from = Math.min(Math.max(window.from, 0), extent - size);
  return { from, to: from + size };
}
