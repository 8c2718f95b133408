// Light or dark is read off the page that the panel stands on, not guessed from the host's name: that holds in
// JupyterLab, VS Code, Colab, marimo and a bare page alike.

function parse(colour: string): [number, number, number, number] | null {
  const match = /^rgba?\(([^)]+)\)$/.exec(colour);
  if (match?.[1] === undefined) return null;
  const [r = 0, g = 0, b = 0, a = 1] = match[1].split(/[\s,/]+/).map(Number);
  return [r, g, b, a];
}

/** Whether the first opaque background behind `element` is dark. */
export function isDark(element: Element): boolean {
  for (let at: Element | null = element; at !== null; at = at.parentElement) {
    const colour = parse(getComputedStyle(at).backgroundColor);
    if (colour !== null && colour[3] > 0.5) {
      return 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2] < 128;
    }
  }
  return typeof matchMedia === "function" && matchMedia("(prefers-color-scheme: dark)").matches;
}

function wantsContrast(): boolean {
  const body = document.body;
  return (
    /high.?contrast/i.test(body.getAttribute("data-jp-theme-name") ?? "") ||
    body.classList.contains("vscode-high-contrast") ||
    body.classList.contains("vscode-high-contrast-light")
  );
}

/** Keeps `data-ji-theme` and `data-ji-contrast` of the panel in step with the page. Returns the end of it. */
export function followTheme(root: HTMLElement): () => void {
  const update = (): void => {
    const parent = root.parentElement;
    if (parent === null) return;
    root.dataset["jiTheme"] = isDark(parent) ? "dark" : "light";
    root.dataset["jiContrast"] = wantsContrast() ? "more" : "normal";
  };
  // A theme's style sheet may arrive after the attribute that announces it.
  const soon = (): void => {
    update();
    setTimeout(update, 120);
  };
  update();
  const observer = new MutationObserver(soon);
  for (const element of [document.documentElement, document.body]) {
    observer.observe(element, { attributes: true });
  }
  const media = typeof matchMedia === "function" ? matchMedia("(prefers-color-scheme: dark)") : null;
  media?.addEventListener("change", soon);
  return () => {
    observer.disconnect();
    media?.removeEventListener("change", soon);
  };
}

export function prefersStillness(): boolean {
  return typeof matchMedia === "function" && matchMedia("(prefers-reduced-motion: reduce)").matches;
}
