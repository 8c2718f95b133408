// The JupyterLab and Notebook 7 plugin: what only the front end can do with a report.

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from "@jupyterlab/application";
import { ICommandPalette, ISessionContextDialogs } from "@jupyterlab/apputils";
import type { ICodeCellModel } from "@jupyterlab/cells";
import { EditorExtensionRegistry, IEditorExtensionRegistry } from "@jupyterlab/codemirror";
import { INotebookTracker, NotebookActions } from "@jupyterlab/notebook";
import { IRenderMimeRegistry } from "@jupyterlab/rendermime";
import { ISettingRegistry } from "@jupyterlab/settingregistry";
import { ITranslator, nullTranslator } from "@jupyterlab/translation";

import { tell } from "./host/protocol";
import { addCommands, COMMANDS, watchAround, type CommandHost } from "./plugin/commands";
import { around, sourceOf } from "./plugin/cells";
import { addHints } from "./plugin/hint";
import { isWatched } from "./plugin/magicLine";
import { markExtension, refreshMarks } from "./plugin/marks";
import { RANK, rendererFactory } from "./plugin/renderer";
import { Requests } from "./plugin/requests";
import { readSettings, DEFAULTS } from "./plugin/settings";
import { offerLoading } from "./plugin/watching";

const ID = "jupyter-inplace:plugin";

const plugin: JupyterFrontEndPlugin<void> = {
  id: ID,
  description: "Shows in-place writes that break PyTorch gradients, and applies proved rewrites.",
  autoStart: true,
  requires: [IRenderMimeRegistry, INotebookTracker, IEditorExtensionRegistry],
  optional: [ISettingRegistry, ITranslator, ICommandPalette, ISessionContextDialogs],
  activate(
    app: JupyterFrontEnd,
    rendermime: IRenderMimeRegistry,
    tracker: INotebookTracker,
    editors: IEditorExtensionRegistry,
    registry: ISettingRegistry | null,
    translator: ITranslator | null,
    palette: ICommandPalette | null,
    dialogs: ISessionContextDialogs | null,
  ): void {
    const trans = (translator ?? nullTranslator).load("jupyter_inplace");
    let settings = DEFAULTS;
    let marksShown = true;
    const tools = { trans, translator: translator ?? nullTranslator, dialogs: dialogs ?? undefined };
    const requests = new Requests(tracker, tools, { runAfterApply: () => settings.runAfterApply });
    const host: CommandHost = {
      tracker,
      tools,
      requests,
      palette,
      toolbar: () => settings.toolbar,
      options: () => settings.options,
      marks: {
        shown: () => marksShown,
        show(on) {
          marksShown = on;
        },
      },
    };

    rendermime.addFactory(rendererFactory(trans), RANK);
    addHints(rendermime, {
      trans,
      wanted(element) {
        const place = around(tracker, element);
        return settings.hint && place !== null && !isWatched(sourceOf(place.cell));
      },
      watch(element) {
        watchAround(element, host);
      },
    });
    requests.listen();
    addCommands(app, host);

    editors.addExtension({
      name: "jupyter-inplace:marks",
      factory: ({ model }) => {
        // Cells hand their model to their editor; files and consoles have no outputs.
        if (!("outputs" in model)) return null;
        return EditorExtensionRegistry.createImmutableExtension(
          markExtension(model as unknown as ICodeCellModel, {
            trans,
            enabled: () => settings.marks && marksShown,
            picked(view, mark) {
              const cell = view.dom.closest(".jp-Cell");
              for (const panel of cell?.querySelectorAll('[data-ji="panel"]') ?? []) {
                tell(panel, { selection: mark.selection });
              }
            },
            changed(view) {
              const cell = view.dom.closest(".jp-Cell");
              if (cell !== null) requests.refresh(cell);
              app.commands.notifyCommandChanged(COMMANDS.watchCell);
            },
          }),
        );
      },
    });

    tracker.widgetAdded.connect((_, panel) => {
      panel.sessionContext.kernelChanged.connect(() => {
        requests.refresh(panel.node);
      });
      panel.content.activeCellChanged.connect(() => {
        app.commands.notifyCommandChanged(COMMANDS.watchCell);
      });
    });

    NotebookActions.executed.connect((_, { cell, success }) => {
      if (success || !isWatched(sourceOf(cell))) return;
      const place = around(tracker, cell.node);
      if (place !== null) offerLoading(place, tools);
    });

    void registry
      ?.load(ID)
      .then((loaded) => {
        const update = (): void => {
          settings = readSettings(loaded.composite);
          refreshMarks();
          app.commands.notifyCommandChanged();
        };
        loaded.changed.connect(update);
        update();
      })
      .catch((error: unknown) => {
        console.error("jupyter_inplace goes on with its default settings:", error);
      });
  },
};

export default plugin;
