// Marks in the cell's editor: underlines on harmful writes and on what they overwrote, signs in the gutter, hover
// text. They follow from two things alone, the cell's outputs and its source: an edit takes them away, undoing it
// brings them back, a re-run empties the outputs and so the marks, reopening restores them.

import { RangeSet, StateEffect, StateField, type Extension, type Range as Ranged } from "@codemirror/state";
import {
  Decoration,
  EditorView,
  gutter,
  GutterMarker,
  hoverTooltip,
  ViewPlugin,
  type DecorationSet,
  type ViewUpdate,
} from "@codemirror/view";
import type { ICodeCellModel } from "@jupyterlab/cells";

import { findInCell } from "../model/source";
import { isHarmful, ofConflict, ofMutation, type Selection } from "../model/selection";
import { readReport } from "../report/read";
import { MIME_TYPE, type Report } from "../report/types";
import { place, versionStep, visible, type Trans } from "../report/words";
import { sameSource } from "./cells";

/** A write that does harm, one of which that is not known, a save that is overwritten. */
type MarkKind = "write" | "unknown" | "save";

const LOUDEST: readonly MarkKind[] = ["write", "unknown", "save"];

export interface Mark {
  from: number;
  to: number;
  kind: MarkKind;
  text: string;
  selection: Selection;
}

export interface Marks {
  report: Report;
  marks: Mark[];
}

/** Where each harmful write and each save that it destroyed stands in the report's own cell. */
export function marksOf(report: Report, trans: Trans): Mark[] {
  const source = report.cell?.source;
  if (source === undefined) return [];
  const found: Mark[] = [];
  for (const mutation of report.mutations.filter(isHarmful)) {
    const range = mutation.site === null ? null : findInCell(source, mutation.site);
    if (range !== null) {
      const hits = mutation.tasks.length === 0 ? "" : ` · ${trans.__("hits %1", mutation.tasks.join(", "))}`;
      found.push({
        from: range.start,
        to: range.end,
        kind: mutation.verdict === "unknown" ? "unknown" : "write",
        text: visible(
          `${mutation.verdict}: ${trans.__("writes %1", mutation.tensor)} · ${versionStep(mutation.versions)}${hits}`,
        ),
        selection: ofMutation(mutation.id),
      });
    }
    for (const conflict of report.conflicts.filter((item) => item.mutation === mutation.id)) {
      const saved = conflict.saved_site === null ? null : findInCell(source, conflict.saved_site);
      if (saved === null) continue;
      found.push({
        from: saved.start,
        to: saved.end,
        kind: "save",
        text: visible(
          `${conflict.node} ${trans.__("saved %1 here; it is overwritten at %2", conflict.tensor, place(mutation.site, trans))}`,
        ),
        selection: ofConflict(conflict),
      });
    }
  }
  return found.filter((mark) => mark.to > mark.from).sort((a, b) => a.from - b.from || b.to - a.to);
}

/** The newest report among a cell's outputs. */
export function reportIn(model: ICodeCellModel): Report | null {
  for (let i = model.outputs.length - 1; i >= 0; i -= 1) {
    const data = model.outputs.get(i).data[MIME_TYPE];
    if (data === undefined) continue;
    try {
      return readReport(data);
    } catch {
      // Another version's report: its panel says so.
      return null;
    }
  }
  return null;
}

const setMarks = StateEffect.define<Marks | null>();
export const setActive = StateEffect.define<Selection | null>();

interface State {
  marks: Marks | null;
  active: Selection | null;
  shown: boolean;
  decorations: DecorationSet;
  gutter: RangeSet<GutterMarker>;
}

class Sign extends GutterMarker {
  constructor(
    private readonly kind: MarkKind,
    private readonly text: string,
  ) {
    super();
  }
  override eq(other: Sign): boolean {
    return this.kind === other.kind && this.text === other.text;
  }
  override toDOM(): Node {
    const element = document.createElement("span");
    element.className = `ji-gutter-sign ji-gutter-${this.kind}`;
    element.title = this.text;
    element.textContent = this.kind === "save" ? "◇" : "●";
    return element;
  }
}

function isActive(mark: Mark, active: Selection | null): boolean {
  if (active?.mutation !== mark.selection.mutation) return false;
  return active.conflict === null || active.conflict === mark.selection.conflict;
}

function draw(
  marks: Marks | null,
  active: Selection | null,
  view: { length: number; lineAt: (at: number) => number },
) {
  if (marks === null)
    return { decorations: Decoration.none, gutter: RangeSet.empty as RangeSet<GutterMarker> };
  const inside = marks.marks.filter((mark) => mark.to <= view.length);
  const decorations = inside.map((mark) =>
    Decoration.mark({
      class: `ji-mark-${mark.kind}${isActive(mark, active) ? " ji-mark-active" : ""}`,
      attributes: { "data-ji-mark": mark.kind },
    }).range(mark.from, mark.to),
  );
  const lines = new Map<number, { kind: MarkKind; texts: string[] }>();
  for (const mark of inside) {
    const at = view.lineAt(mark.from);
    const known = lines.get(at);
    if (known === undefined) lines.set(at, { kind: mark.kind, texts: [mark.text] });
    else {
      known.texts.push(mark.text);
      known.kind = LOUDEST.find((kind) => kind === mark.kind || kind === known.kind) ?? known.kind;
    }
  }
  const signs: Ranged<GutterMarker>[] = [...lines]
    .sort(([a], [b]) => a - b)
    .map(([at, sign]) => new Sign(sign.kind, sign.texts.join("\n")).range(at));
  return { decorations: Decoration.set(decorations, true), gutter: RangeSet.of(signs) };
}

const field = StateField.define<State>({
  create: () => ({
    marks: null,
    active: null,
    shown: false,
    ...draw(null, null, { length: 0, lineAt: () => 0 }),
  }),
  update(value, transaction) {
    let { marks, active } = value;
    let changed = transaction.docChanged;
    for (const effect of transaction.effects) {
      if (effect.is(setMarks)) {
        marks = effect.value;
        changed = true;
      }
      if (effect.is(setActive)) {
        active = effect.value;
        changed = true;
      }
    }
    if (!changed) return value;
    const { doc } = transaction.state;
    const source = marks?.report.cell?.source;
    const shown = source !== undefined && sameSource(doc.toString(), source);
    return {
      marks,
      active,
      shown,
      ...draw(shown ? marks : null, active, { length: doc.length, lineAt: (at) => doc.lineAt(at).from }),
    };
  },
  provide: (self) => [
    EditorView.decorations.from(self, (value) => value.decorations),
    // An empty gutter takes width: it is there only while it holds something.
    EditorView.editorAttributes.from(self, (value) => ({
      class: value.gutter.size > 0 ? "ji-has-marks" : "",
    })),
  ],
});

/** The marks that stand in an editor now. */
export function shownMarks(view: EditorView): readonly Mark[] {
  const value = view.state.field(field, false);
  return value?.shown === true ? (value.marks?.marks ?? []) : [];
}

export interface MarkHost {
  trans: Trans;
  /** Whether marks are wanted (a setting). */
  enabled: () => boolean;
  /** The person picked a mark in the editor. */
  picked: (view: EditorView, mark: Mark) => void;
  /** The source changed, or the outputs did. */
  changed: (view: EditorView) => void;
}

const refreshers = new Set<() => void>();

/** Draws all marks anew, after a change of settings. */
export function refreshMarks(): void {
  for (const refresh of refreshers) refresh();
}

/** The editor extension of one code cell. */
export function markExtension(model: ICodeCellModel, host: MarkHost): Extension {
  const plugin = ViewPlugin.define((view) => {
    let done = false;
    const refresh = (): void => {
      if (done) return;
      const report = host.enabled() ? reportIn(model) : null;
      const marks = report === null ? null : { report, marks: marksOf(report, host.trans) };
      view.dispatch({ effects: setMarks.of(marks) });
      host.changed(view);
    };
    // An editor may not be changed while it is being made or updated.
    const soon = (): void => {
      queueMicrotask(refresh);
    };
    model.outputs.changed.connect(soon);
    model.outputs.stateChanged.connect(soon);
    refreshers.add(refresh);
    soon();
    return {
      update(update: ViewUpdate) {
        if (update.docChanged) {
          queueMicrotask(() => {
            if (!done) host.changed(view);
          });
        }
      },
      destroy() {
        done = true;
        refreshers.delete(refresh);
        if (model.isDisposed) return;
        model.outputs.changed.disconnect(soon);
        model.outputs.stateChanged.disconnect(soon);
      },
    };
  });
  const at = (view: EditorView, position: number): Mark | undefined =>
    [...shownMarks(view)].reverse().find((mark) => mark.from <= position && position <= mark.to);
  return [
    field,
    plugin,
    gutter({ class: "ji-gutter", markers: (view) => view.state.field(field).gutter }),
    hoverTooltip((view, position) => {
      const marks = shownMarks(view).filter((mark) => mark.from <= position && position <= mark.to);
      const [first] = marks;
      if (first === undefined) return null;
      return {
        pos: first.from,
        end: first.to,
        above: true,
        create: () => {
          const dom = document.createElement("div");
          dom.className = "ji-hover";
          for (const mark of marks) {
            const line = document.createElement("div");
            line.textContent = `${mark.kind === "write" ? "●" : "◇"} ${mark.text}`;
            dom.appendChild(line);
          }
          return { dom };
        },
      };
    }),
    EditorView.domEventHandlers({
      mousedown(event, view) {
        const position = view.posAtCoords({ x: event.clientX, y: event.clientY });
        const mark = position === null ? undefined : at(view, position);
        if (mark !== undefined) host.picked(view, mark);
      },
    }),
    EditorView.baseTheme({
      ".ji-mark-write": {
        textDecoration: "underline 2px",
        textDecorationColor: "var(--jp-error-color1, #b3261e)",
        textUnderlineOffset: "4px",
        textDecorationSkipInk: "none",
      },
      ".ji-mark-unknown": {
        textDecoration: "underline 2px",
        textDecorationColor: "var(--jp-warn-color1, #a15c00)",
        textUnderlineOffset: "4px",
        textDecorationSkipInk: "none",
      },
      ".ji-mark-save": {
        textDecoration: "underline dotted 2px",
        textDecorationColor: "var(--jp-brand-color1, #1a63d8)",
        textUnderlineOffset: "4px",
        textDecorationSkipInk: "none",
      },
      ".ji-mark-active.ji-mark-write": {
        background: "color-mix(in srgb, var(--jp-error-color1, #b3261e) 16%, transparent)",
      },
      ".ji-mark-active.ji-mark-unknown": {
        background: "color-mix(in srgb, var(--jp-warn-color1, #a15c00) 16%, transparent)",
      },
      ".ji-mark-active.ji-mark-save": {
        background: "color-mix(in srgb, var(--jp-brand-color1, #1a63d8) 16%, transparent)",
      },
      ".ji-gutter": { display: "none", width: "14px" },
      "&.ji-has-marks .ji-gutter": { display: "flex" },
      // JupyterLab greys the gutters for line numbers; marks alone need no ground of their own.
      "& .cm-gutters:has(> .ji-gutter:only-child)": { background: "transparent", border: "none" },
      "&:not(.ji-has-marks) .cm-gutters:has(> .ji-gutter:only-child)": { display: "none" },
      ".ji-gutter-sign": { display: "block", textAlign: "center", cursor: "help", fontSize: "11px" },
      ".ji-gutter-write": { color: "var(--jp-error-color1, #b3261e)" },
      ".ji-gutter-unknown": { color: "var(--jp-warn-color1, #a15c00)" },
      ".ji-gutter-save": { color: "var(--jp-brand-color1, #1a63d8)" },
      ".cm-tooltip .ji-hover, .ji-hover": {
        padding: "4px 8px",
        maxWidth: "520px",
        fontFamily: "var(--jp-ui-font-family)",
        fontSize: "var(--jp-ui-font-size1)",
      },
    }),
  ];
}
