// The visible part of the axis: zooming, panning, by wheel, pointer and buttons.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import type { RefObject } from "preact";

import { pan, zoom, type Window } from "../../model/scale";
import { prefersStillness } from "../theme";

export interface WindowControl {
  window: Window;
  zoomed: boolean;
  zoomBy: (factor: number, at?: number) => void;
  panBy: (units: number) => void;
  goTo: (target: Window) => void;
  fit: () => void;
}

const STEP_MS = 180;

export function useWindow(extent: number, plot: RefObject<Element | null>, width: number): WindowControl {
  const [window, setWindow] = useState<Window>({ from: 0, to: extent });
  const latest = useRef(window);
  latest.current = window;
  const frame = useRef(0);
  const lastExtent = useRef(extent);
  if (lastExtent.current !== extent) {
    lastExtent.current = extent;
    latest.current = { from: 0, to: extent };
    setWindow(latest.current);
  }

  const set = useCallback((next: Window): void => {
    cancelAnimationFrame(frame.current);
    latest.current = next;
    setWindow(next);
  }, []);
  const goTo = useCallback(
    (target: Window): void => {
      if (prefersStillness()) {
        set(target);
        return;
      }
      const start = latest.current;
      const began = performance.now();
      const move = (now: number): void => {
        const t = Math.min(1, (now - began) / STEP_MS);
        const eased = 1 - (1 - t) ** 3;
        const next = {
          from: start.from + (target.from - start.from) * eased,
          to: start.to + (target.to - start.to) * eased,
        };
        latest.current = next;
        setWindow(next);
        if (t < 1) frame.current = requestAnimationFrame(move);
      };
      cancelAnimationFrame(frame.current);
      frame.current = requestAnimationFrame(move);
    },
    [set],
  );
  const zoomBy = useCallback(
    (factor: number, at?: number): void => {
      const { from, to } = latest.current;
      goTo(zoom(latest.current, factor, at ?? (from + to) / 2, extent));
    },
    [extent, goTo],
  );
  const panBy = useCallback(
    (units: number): void => {
      set(pan(latest.current, units, extent));
    },
    [extent, set],
  );

  useEffect(() => {
    const element = plot.current;
    if (element === null || width <= 0) return undefined;
    const unitsPerPixel = (): number => (latest.current.to - latest.current.from) / width;
    const at = (x: number): number =>
      latest.current.from + (x - element.getBoundingClientRect().left) * unitsPerPixel();
    // A plain wheel scrolls the notebook; with Ctrl (and so a pinch) it zooms, sideways or with Shift it pans.
    const onWheel = (event: WheelEvent): void => {
      if (event.ctrlKey || event.metaKey) {
        event.preventDefault();
        set(zoom(latest.current, Math.exp(event.deltaY * 0.004), at(event.clientX), extent));
      } else {
        const sideways = event.shiftKey ? event.deltaY : event.deltaX;
        if (Math.abs(sideways) <= Math.abs(event.shiftKey ? 0 : event.deltaY)) return;
        if (latest.current.to - latest.current.from >= extent) return;
        event.preventDefault();
        set(pan(latest.current, sideways * unitsPerPixel(), extent));
      }
    };
    let last: number | null = null;
    const onDown = (event: PointerEvent): void => {
      if (event.button === 0) last = event.clientX;
    };
    const onMove = (event: PointerEvent): void => {
      if (last === null || event.buttons === 0) {
        last = null;
        return;
      }
      const moved = last - event.clientX;
      last = event.clientX;
      if (moved !== 0) set(pan(latest.current, moved * unitsPerPixel(), extent));
    };
    const onUp = (): void => {
      last = null;
    };
    const target = element as HTMLElement;
    target.addEventListener("wheel", onWheel, { passive: false });
    target.addEventListener("pointerdown", onDown);
    globalThis.window.addEventListener("pointermove", onMove);
    globalThis.window.addEventListener("pointerup", onUp);
    return () => {
      target.removeEventListener("wheel", onWheel);
      target.removeEventListener("pointerdown", onDown);
      globalThis.window.removeEventListener("pointermove", onMove);
      globalThis.window.removeEventListener("pointerup", onUp);
    };
  }, [extent, plot, set, width]);
  useEffect(
    () => () => {
      cancelAnimationFrame(frame.current);
    },
    [],
  );

  return {
    window,
    zoomed: window.to - window.from < extent - 1e-6,
    zoomBy,
    panBy,
    goTo,
    fit: () => {
      goTo({ from: 0, to: extent });
    },
  };
}
