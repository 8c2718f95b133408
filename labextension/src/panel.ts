// The anywidget: the panel in any front end (VS Code, Colab, marimo, JupyterLab without the extension).

import type { Outcome } from "./host/protocol";
import type { Fix } from "./report/types";
import { english } from "./report/words";
import { mount } from "./view/mount";

/** The part of anywidget's model that is used. */
interface Model {
  get(name: string): unknown;
  set(name: string, value: unknown): void;
  save_changes(): void;
  on(name: string, callback: () => void): void;
  off(name: string, callback: () => void): void;
  send(content: unknown): void;
}

function render({ model, el }: { model: Model; el: HTMLElement }): () => void {
  const handle = mount(el, model.get("report"), {
    onSelect(selection) {
      model.set("selected", selection);
      model.save_changes();
    },
    fallback: (fix) => copy(fix, model),
  });
  const onReport = (): void => {
    handle.update(model.get("report"));
  };
  const onSelected = (): void => {
    handle.select(model.get("selected") ?? {});
  };
  model.on("change:report", onReport);
  model.on("change:selected", onSelected);
  return () => {
    model.off("change:report", onReport);
    model.off("change:selected", onSelected);
    handle.dispose();
  };
}

/** Where no extension changes the cell, its new source goes to the clipboard, else into the next input. */
async function copy(fix: Fix, model: Model): Promise<Outcome> {
  try {
    await navigator.clipboard.writeText(fix.source);
    return { ok: true, message: english.__("Copied. Paste it over the cell.") };
  } catch {
    // No clipboard: an insecure page, or a frame that may not use it.
    model.send({ action: "next_input", fix: fix.id });
    return { ok: true, message: english.__("The new source stands below after the next cell that you run.") };
  }
}

export default { render };
