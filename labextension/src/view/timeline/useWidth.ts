// The width of an element, measured before it is painted and whenever it changes.

import type { RefObject } from "preact";
import { useLayoutEffect, useState } from "preact/hooks";

/** Width before anything could be measured. */
const UNMEASURED = 600;

/** @param present whether the element is drawn at all. */
export function useWidth(measured: RefObject<Element | null>, present: boolean): number {
  const [width, setWidth] = useState(UNMEASURED);
  useLayoutEffect(() => {
    const element = measured.current;
    if (element === null) return undefined;
    const measure = (): void => {
      if (element.clientWidth > 0) setWidth(element.clientWidth);
    };
    measure();
    if (typeof ResizeObserver !== "function") return undefined;
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => {
      observer.disconnect();
    };
  }, [present]);
  return width;
}
