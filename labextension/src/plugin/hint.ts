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

const BOX: Partial<CSSStyleDeclaration> = {
  display: "flex",
  flexWrap: "wrap",
  alignItems: "center",
  gap: "6px 14px",
  margin: "8px 0 2px",
  padding: "6px 10px",
  borderRadius: "4px",
  border: "1px solid var(--jp-border-color2)",
  background: "var(--jp-layout-color0)",
  color: "var(--jp-ui-font-color1)",
  fontFamily: "var(--jp-ui-font-family)",
  fontSize: "var(--jp-ui-font-size1)",
  whiteSpace: "normal",
};

function offer(node: HTMLElement, host: HintHost): void {
  // The output does not stand in its cell yet.
  requestAnimationFrame(() => {
    if (!node.isConnected || node.querySelector(".ji-hint-box") !== null || !host.wanted(node)) return;
    const { trans } = host;
    const box = document.createElement("div");
    box.className = "ji-hint-box";
    // No style sheet of ours may be in the page yet: no panel need have been drawn.
    Object.assign(box.style, BOX);
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
