import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { REQUEST, tell, type RequestDetail } from "../src/host/protocol";
import { mount, type PanelHandle } from "../src/view/mount";
import { example, type Json } from "./fixtures";

let host: HTMLElement;
let handle: PanelHandle | undefined;

beforeEach(() => {
  host = document.createElement("div");
  document.body.appendChild(host);
});

afterEach(() => {
  handle?.dispose();
  host.remove();
});

const settle = (): Promise<void> => new Promise((done) => setTimeout(done, 60));
const all = (selector: string): HTMLElement[] => [...host.querySelectorAll<HTMLElement>(selector)];
const one = (selector: string): HTMLElement => {
  const found = host.querySelector<HTMLElement>(selector);
  if (found === null) throw new Error(`nothing matches ${selector}`);
  return found;
};

describe("the panel", () => {
  it("carries the attributes that tests elsewhere rely on", () => {
    handle = mount(host, example());
    expect(one('[data-ji="verdict"]').dataset["jiVerdict"]).toBe("breaks");
    expect(all('[data-ji="panel"] [data-ji="timeline"]')).toHaveLength(1);
    expect(all('[data-ji="mutation"]').map((item) => item.dataset["jiId"])).toEqual(["0"]);
    expect(
      all('[data-ji="gradient"]').map((cell) => [
        cell.dataset["jiTask"],
        cell.dataset["jiLeaf"],
        cell.dataset["jiStatus"],
      ]),
    ).toEqual([
      ["seg", "trunk.weight", "raises"],
      ["depth", "trunk.weight", "raises"],
      ["seg", "heads.seg.weight", "wrong"],
      ["depth", "heads.depth.weight", "ok"],
    ]);
    expect(all('[data-ji="fix"]').map((item) => [item.dataset["jiKind"], item.dataset["jiStatus"]])).toEqual([
      ["out_of_place", "passed"],
      ["clone", "failed"],
    ]);
    expect(all('[data-ji="apply"]')).toHaveLength(1);
    expect(all('[data-ji="event"][data-ji-id="3"]')).toHaveLength(1);
  });

  it("makes no element of any text of the report", () => {
    const hostile = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>';
    const spoil = (value: unknown, key = ""): unknown => {
      if (["format", "kind", "status", "verdict", "reading", "file"].includes(key)) return value;
      if (typeof value === "string") return hostile;
      if (Array.isArray(value)) return value.map((item) => spoil(item));
      if (typeof value === "object" && value !== null) {
        return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, spoil(item, name)]));
      }
      return value;
    };
    handle = mount(host, spoil(example()));
    expect(all("img, script, iframe, [onerror]")).toHaveLength(0);
    expect(host.textContent).toContain("<script>");
  });

  it("says in one sentence what it cannot read", () => {
    handle = mount(host, { format: "jupyter-inplace/report", version: 9 });
    expect(host.textContent).toContain("This report has version 9");
    handle.update(example());
    expect(all('[data-ji="fix"]')).toHaveLength(2);
  });

  it("shows a clean cell as one line that unfolds", async () => {
    const data = example();
    (data["mutations"] as Json[])[0]!["verdict"] = "harmless";
    handle = mount(host, {
      ...data,
      verdict: "harmless",
      summary: "2 in-place writes; none harms a gradient.",
      fixes: [],
    });
    expect(all('[data-ji="timeline"]')).toHaveLength(0);
    one("button").click();
    await settle();
    expect(all('[data-ji="timeline"]')).toHaveLength(1);
    expect(one("button").getAttribute("aria-expanded")).toBe("true");
  });

  it("shows a cell of which nobody can tell open and as a warning", () => {
    const data = example();
    (data["mutations"] as Json[])[0]!["verdict"] = "harmless";
    const why = "the recorder failed";
    handle = mount(host, {
      ...data,
      verdict: "unknown",
      blind_spots: [why],
      unknown_because: [why],
      fixes: [],
    });
    expect(one('[data-ji="verdict"]').className).toBe("ji-verdict ji-tone-warning");
    expect(all('[data-ji="timeline"]')).toHaveLength(1);
    expect(one('[data-ji="blind-spots"]').textContent).toContain(why);
  });

  it("counts writes that are not known to be harmless apart", () => {
    const data = example();
    (data["mutations"] as Json[])[0]!["verdict"] = "unknown";
    for (const row of data["gradients"] as Json[]) row["status"] = "unknown";
    handle = mount(host, { ...data, verdict: "unknown", fixes: [] });
    const said = one('[data-ji="verdict"]').textContent;
    expect(said).toContain("1 write not known to be harmless");
    expect(said).not.toContain("all gradients right");
    expect(said).toContain("0 of them hit");
    expect(all(".ji-status-unknown").length).toBeGreaterThan(0);
    expect(all('[data-ji="fixes"]')).toHaveLength(0);
  });

  it("asks the host, and shows its answer", async () => {
    const asked: string[] = [];
    const listener = (event: Event): void => {
      const { detail } = event as CustomEvent<RequestDetail>;
      asked.push(detail.request.action);
      event.preventDefault();
      if (detail.request.action === "apply")
        detail.answer = Promise.resolve({ ok: false, message: "Not applied: edited." });
    };
    document.addEventListener(REQUEST, listener);
    handle = mount(host, example());
    await settle();
    one('[data-ji="apply"]').click();
    await settle();
    document.removeEventListener(REQUEST, listener);
    expect(asked).toContain("hello");
    expect(asked).toContain("apply");
    expect(one('[data-ji="outcome"]').textContent).toBe("Not applied: edited.");
  });

  it("falls back where nobody answers", async () => {
    const fallback = vi.fn(() => Promise.resolve({ ok: true, message: "Copied." }));
    handle = mount(host, example(), { fallback });
    one('[data-ji="apply"]').click();
    await settle();
    expect(fallback).toHaveBeenCalledOnce();
    expect(one('[data-ji="outcome"]').textContent).toBe("Copied.");
  });

  it("offers to run only what is trusted", async () => {
    handle = mount(host, example(), { trusted: false });
    await settle();
    tell(one('[data-ji="panel"]'), { canRun: true });
    await settle();
    expect(all('[data-ji="apply-run"]')).toHaveLength(0);
    handle.update(example(), { trusted: true });
    await settle();
    expect(all('[data-ji="apply-run"]')).toHaveLength(1);
  });

  it("keeps selection and focus while proofs arrive", async () => {
    const data = example();
    handle = mount(host, data);
    await settle();
    one('[data-ji="gradient"][data-ji-task="depth"] button').click();
    await settle();
    const button = one('[data-ji="gradient"][data-ji-task="depth"] button');
    button.focus();
    const proved = example();
    (proved["fixes"] as { verification: Json }[])[1]!.verification["status"] = "passed";
    handle.update(proved);
    await settle();
    expect(all('[data-ji="apply"]')).toHaveLength(2);
    expect(one('[data-ji="gradient-detail"]').textContent).toContain("0.208");
    expect(document.activeElement).toBe(one('[data-ji="gradient"][data-ji-task="depth"] button'));
  });

  it("walks the timeline by keys with one tab stop", async () => {
    handle = mount(host, example());
    await settle();
    const stops = (): HTMLElement[] => all('[data-ji="event"][tabindex="0"]');
    expect(stops()).toHaveLength(1);
    const press = async (key: string): Promise<void> => {
      stops()[0]!.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
      await settle();
    };
    const before = stops()[0]!.dataset["jiId"];
    await press("ArrowRight");
    expect(stops()).toHaveLength(1);
    expect(stops()[0]!.dataset["jiId"]).not.toBe(before);
    await press("ArrowDown");
    await press("Enter");
    expect(all('[data-ji="event"][tabindex="0"]')).toHaveLength(1);
  });

  it("shows the numbers of the report", () => {
    handle = mount(host, example());
    const cell = one('[data-ji="gradient"][data-ji-status="wrong"]');
    expect(cell.textContent).toContain("33 %");
    expect(cell.textContent).toContain("cos 0.90");
    expect(one('[data-ji="cosine"][data-ji-leaf="trunk.weight"]').textContent).toContain("−0.57");
    expect(one('[data-ji="proof"]').textContent).toBe("same losses · 2 of 2 gradients right · +80 B");
  });

  it("works its diff out from the sources, not from the report's own text", () => {
    const data = example();
    (data["fixes"] as Json[])[0]!["diff"] = "-harmless\n+lie";
    handle = mount(host, data);
    expect(one('[data-ji="fix"] [data-ji="diff"]').textContent).toContain("z = z.mul(0.5)");
    expect(host.textContent).not.toContain("lie");
  });
});
