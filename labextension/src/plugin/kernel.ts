// All that the extension asks of the kernel: load `jupyter_inplace`, switch watching on, put a cell's state back.
// Everything is a silent execute request: it needs no comm to be open, queues behind the running cell in order, and
// its reply says whether it worked.

import type { ISessionContext } from "@jupyterlab/apputils";
import type { Kernel, KernelMessage } from "@jupyterlab/services";

import type { Sources } from "../host/protocol";

export interface Rewound {
  restored: string[];
  notRestored: { name: string; reason: string }[];
  /** Why nothing could be put back at all; null where something was. */
  reason: string | null;
}

function kernelOf(context: ISessionContext): Kernel.IKernelConnection | null {
  return context.session?.kernel ?? null;
}

export function hasKernel(context: ISessionContext): boolean {
  return kernelOf(context) !== null;
}

const TRIES = 20;
const PAUSE_MS = 150;

/**
 * Executes silently and gives the reply. When a cell fails, the kernel aborts the requests that wait behind it, ours
 * among them: those are sent again.
 */
async function execute(
  kernel: Kernel.IKernelConnection,
  code: string,
  expressions: Record<string, string> = {},
): Promise<KernelMessage.IExecuteReplyMsg["content"]> {
  for (let turn = 1; ; turn += 1) {
    const request = kernel.requestExecute({
      code,
      silent: true,
      store_history: false,
      stop_on_error: false,
      user_expressions: expressions,
    });
    const { content } = await request.done;
    // Older kernels say "aborted", which the types of today's protocol call "abort".
    const aborted = (content.status as string).startsWith("abort");
    if (!aborted || turn === TRIES) return content;
    await new Promise((done) => setTimeout(done, PAUSE_MS));
  }
}

/** What went wrong, or null. */
async function silently(kernel: Kernel.IKernelConnection, code: string): Promise<string | null> {
  const content = await execute(kernel, code);
  if (content.status === "error") return `${content.ename}: ${content.evalue}`;
  return content.status === "ok" ? null : "the kernel aborted the request";
}

/** Loads the extension in the kernel. Resolves to what went wrong, or null. */
export async function load(context: ISessionContext): Promise<string | null> {
  const kernel = kernelOf(context);
  if (kernel === null) return "no kernel";
  // `%load_ext` prints where it fails, so ask for what it does.
  return silently(kernel, "get_ipython().extension_manager.load_extension('jupyter_inplace')");
}

/** Watches every following cell, or no longer. Resolves to what went wrong, or null. */
export async function watchAll(context: ISessionContext, on: boolean): Promise<string | null> {
  const failed = await load(context);
  if (failed !== null) return failed;
  const kernel = kernelOf(context);
  return kernel === null ? "no kernel" : silently(kernel, `%autograd_watch ${on ? "on" : "off"}`);
}

/** Puts back what the watched run of a cell changed. Resolves when the kernel got to it. */
export async function rewind(context: ISessionContext, cellId: string): Promise<Rewound> {
  const kernel = kernelOf(context);
  if (kernel === null) return nothing("no kernel");
  const repr = await evaluate(kernel, "jupyter_inplace.magic", "rewind_for_panel", cellId);
  return repr === null ? nothing("this kernel keeps no state of it") : readRewound(repr);
}

/** Lines of files outside of the cell, which only the kernel that ran it knows. */
export async function sources(context: ISessionContext, cellId: string): Promise<Sources | null> {
  const kernel = kernelOf(context);
  const repr =
    kernel === null
      ? null
      : await evaluate(kernel, "jupyter_inplace.show.panel", "sources_for_panel", cellId);
  return repr === null ? null : readSources(repr);
}

export function readSources(repr: string): Sources | null {
  try {
    const data: unknown = JSON.parse(unquote(repr));
    if (typeof data !== "object" || data === null) return null;
    const lines = Object.entries(data).flatMap(([key, line]) => {
      const { text, line_text: lineText } = line as { text?: unknown; line_text?: unknown };
      return typeof text === "string" && typeof lineText === "string"
        ? [[key, { text, line_text: lineText }] as const]
        : [];
    });
    return lines.length === 0 ? null : Object.fromEntries(lines);
  } catch {
    return null;
  }
}

/** A Python string literal of `text`: ASCII alone, which Python reads as JavaScript does. */
export function literal(text: string): string {
  return JSON.stringify(text).replace(
    /[^\x20-\x7e]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** The repr of `MODULE.NAME(ARGUMENT)`; null where it raised. The argument goes as a string and as nothing else. */
async function evaluate(
  kernel: Kernel.IKernelConnection,
  module: string,
  name: string,
  argument: string,
): Promise<string | null> {
  const call = `__import__("${module}", fromlist=["_"]).${name}(${literal(argument)})`;
  const content = await execute(kernel, "", { answer: call });
  if (content.status !== "ok") return null;
  const answer = content.user_expressions["answer"] as
    { status?: string; data?: Record<string, unknown> } | undefined;
  const text = answer?.data?.["text/plain"];
  return answer?.status === "ok" && typeof text === "string" ? text : null;
}

function nothing(reason: string): Rewound {
  return { restored: [], notRestored: [], reason };
}

/** Reads the repr of a Python string that holds JSON. */
export function readRewound(repr: string): Rewound {
  try {
    const data = JSON.parse(unquote(repr)) as {
      restored?: unknown;
      not_restored?: unknown;
      reason?: unknown;
    };
    const names = Array.isArray(data.restored) ? data.restored.map(String) : [];
    const lost = Array.isArray(data.not_restored) ? data.not_restored : [];
    return {
      restored: names,
      notRestored: lost.map((item: unknown) => {
        const { name, reason } = (typeof item === "object" && item !== null ? item : { name: item }) as {
          name?: unknown;
          reason?: unknown;
        };
        return { name: String(name), reason: typeof reason === "string" ? reason : "" };
      }),
      reason: typeof data.reason === "string" ? data.reason : null,
    };
  } catch {
    return nothing("the kernel's answer could not be read");
  }
}

// Python writes 'it\'s', "a'b", \\ and \n as JavaScript does; \xNN is the one form that JSON lacks.
function unquote(repr: string): string {
  const quote = repr[0] ?? "";
  if ((quote !== "'" && quote !== '"') || repr.at(-1) !== quote) throw new Error("not a string");
  return repr
    .slice(1, -1)
    .replace(/\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[\s\S])/g, (_, escape: string) => {
      const [kind = ""] = escape;
      if ("xuU".includes(kind) && escape.length > 1)
        return String.fromCodePoint(parseInt(escape.slice(1), 16));
      return { n: "\n", r: "\r", t: "\t" }[kind] ?? kind;
    });
}
