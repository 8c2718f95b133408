// At the moment of pain: under torch's in-place or leaf error stands a button that watches the cell.

import type { IRenderMimeRegistry } from "@jupyterlab/rendermime";
import type { IRenderMime } from "@jupyterlab/rendermime-interfaces";

import type { Trans } from "../report/words";
import { isPainful } from "./pain";

const ERROR = "application/vnd.jupyter.error";
const TRACEBACK = "application/vnd.jupyter.stderr";

export interface HintHost {
  trans: Trans;
  /** Whether the hint is wanted for an error that stands in `element`. */
  wanted: (element: Element) => boolean;
  watch: (element: Element) => void;
}

/** Shows errors as JupyterLab does, by whatever draws tracebacks there, and adds the hint. */
export function addHints(rendermime: IRenderMimeRegistry, host: HintHost): void {
  const tracebacks = rendermime.getFactory(TRACEBACK);
  if (tracebacks === undefined) return;
  const rank = (tracebacks.defaultRank ?? 100) - 1;
  rendermime.addFactory(
    {
      safe: tracebacks.safe,
      mimeTypes: [ERROR],
      createRenderer(options): IRenderMime.IRenderer {
        const renderer = tracebacks.createRenderer({ ...options, mimeType: TRACEBACK });
        const renderModel = renderer.renderModel.bind(renderer);
        renderer.renderModel = async (model) => {
          await renderModel(model);
          if (isPainful(model.data[ERROR])) offer(renderer.node, host);
        };
        return renderer;
      },
    },
    rank,
  );
}

function offer(node: HTMLElement, host: HintHost): void {
  // The output does not stand in its cell yet.
  requestAnimationFrame(() => {
    if (!node.isConnected || node.querySelector(".ji-hint-box") !== null || !host.wanted(node)) return;
    const { trans } = host;
    const box = document.createElement("div");
    box.className = "ji-hint-box";
    box.dataset["ji"] = "hint";
    const text = document.createElement("span");
    text.textContent = trans.__(
      "An in-place write did this. jupyter_inplace can find it and prove a rewrite.",
    );
    const button = document.createElement("button");
    button.type = "button";
    button.className = "jp-mod-styled jp-mod-accept ji-hint-button";
    button.dataset["ji"] = "watch";
    button.textContent = trans.__("Watch this cell");
    button.addEventListener("click", () => {
      host.watch(node);
    });
    box.append(text, button);
    node.appendChild(box);
  });
}
