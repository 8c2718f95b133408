// The settings of schema/plugin.json.

export interface Settings {
  marks: boolean;
  runAfterApply: boolean;
  toolbar: boolean;
  hint: boolean;
  options: string;
}

export const DEFAULTS: Settings = {
  marks: true,
  runAfterApply: false,
  toolbar: true,
  hint: true,
  options: "",
};

export function readSettings(data: Readonly<Record<string, unknown>>): Settings {
  const flag = (name: "marks" | "runAfterApply" | "toolbar" | "hint"): boolean => {
    const value = data[name];
    return typeof value === "boolean" ? value : DEFAULTS[name];
  };
  const { options } = data as { options?: unknown };
  return {
    marks: flag("marks"),
    runAfterApply: flag("runAfterApply"),
    toolbar: flag("toolbar"),
    hint: flag("hint"),
    // One line: what stands here becomes a line of the cell.
    options: typeof options === "string" ? options.replace(/\s+/g, " ").trim() : DEFAULTS.options,
  };
}
