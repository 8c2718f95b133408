// The anywidget: the panel in any front end (VS Code, Colab, marimo, JupyterLab without the extension).

import type { Outcome, Sources } from "./host/protocol";
import type { Fix } from "./report/types";
import { english } from "./report/words";
import { mount } from "./view/mount";

/** The part of anywidget's model that is used. */
interface Model {
  get(name: string): unknown;
  set(name: string, value: unknown): void;
  save_changes(): void;
  on(name: string, callback: (content?: unknown) => void): void;
  off(name: string, callback: (content?: unknown) => void): void;
  send(content: unknown): void;
}

function render({ model, el }: { model: Model; el: HTMLElement }): () => void {
  const handle = mount(el, model.get("report"), {
    onSelect(selection) {
      model.set("selected", selection);
      model.save_changes();
    },
    fallback: (fix) => copy(fix, model),
    askKernel: () => askSources(model),
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

const PATIENCE_MS = 10_000;

/** The lines of other files, from the kernel's side of the widget. */
function askSources(model: Model): Promise<Outcome> {
  return new Promise((done) => {
    const finish = (outcome: Outcome): void => {
      model.off("msg:custom", onMessage);
      clearTimeout(timer);
      done(outcome);
    };
    const onMessage = (content: unknown): void => {
      const { sources } = content as { sources?: Sources };
      if (sources !== undefined) finish({ ok: Object.keys(sources).length > 0, message: "", sources });
    };
    const timer = setTimeout(() => {
      finish({ ok: false, message: english.__("The kernel does not answer.") });
    }, PATIENCE_MS);
    model.on("msg:custom", onMessage);
    model.send({ action: "sources" });
  });
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
