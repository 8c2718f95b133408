// Draws a report's own MIME type: the saved output is the panel, with or without a kernel.

import type { IRenderMime } from "@jupyterlab/rendermime-interfaces";
import { Widget } from "@lumino/widgets";
import type { Message } from "@lumino/messaging";

import { MIME_TYPE } from "../report/types";
import type { Trans } from "../report/words";
import { mount, type PanelHandle } from "../view/mount";

class ReportRenderer extends Widget implements IRenderMime.IRenderer {
  private handle: PanelHandle | null = null;

  constructor(private readonly trans: Trans) {
    super();
    this.addClass("jp-inplace");
  }

  renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    const data = model.data[MIME_TYPE];
    if (this.handle === null)
      this.handle = mount(this.node, data, { trans: this.trans, trusted: model.trusted });
    else this.handle.update(data, { trusted: model.trusted });
    return Promise.resolve();
  }

  // Only now does an event of the panel reach the document.
  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this.handle?.greet();
  }

  override dispose(): void {
    this.handle?.dispose();
    this.handle = null;
    super.dispose();
  }
}

/** Reports never run code and trust no HTML, so they are shown in untrusted notebooks too. */
export function rendererFactory(trans: Trans): IRenderMime.IRendererFactory {
  return {
    safe: true,
    mimeTypes: [MIME_TYPE],
    createRenderer: () => new ReportRenderer(trans),
  };
}

/** Ahead of the widget that stands in the same bundle. */
export const RANK = -20;
