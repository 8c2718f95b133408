"""The style sheet of the static HTML.

Backgrounds and text take the colours of the front end (the variables of JupyterLab, then those of VS Code). Colours with a
meaning are our own, since they must have enough contrast in every theme. Light or dark is as the front end says, else as the
system says.
"""

from __future__ import annotations

from jupyter_inplace.show.html.markup import Markup

_LIGHT = """
--ji-bad:#b3261e;--ji-good:#1a7f37;--ji-warn:#8a5a00;--ji-save:#1f5fc4;
--ji-t0:#6b3fb5;--ji-t1:#00747a;--ji-t2:#9a4a00;--ji-t3:#a3246f;--ji-t4:#33691e;--ji-t5:#31559c;
--ji-bad-bg:#fdeceb;--ji-good-bg:#e6f4ea;--ji-warn-bg:#fdf3dc;
"""
_DARK = """
--ji-bad:#ff8b80;--ji-good:#6fd08c;--ji-warn:#e8b95a;--ji-save:#82b1ff;
--ji-t0:#c3a6ff;--ji-t1:#63cfd4;--ji-t2:#ffb074;--ji-t3:#ff9fd2;--ji-t4:#a5d06f;--ji-t5:#9db8ff;
--ji-bad-bg:#3d1f1d;--ji-good-bg:#17331f;--ji-warn-bg:#3a2e12;
"""

_BASE = """
.ji-panel{%(light)s
--ji-bg:var(--jp-layout-color0,var(--vscode-editor-background,#fff));
--ji-fg:var(--jp-content-font-color1,var(--vscode-editor-foreground,#1f2328));
--ji-dim:var(--jp-ui-font-color2,var(--vscode-descriptionForeground,#59636e));
--ji-line:var(--jp-border-color2,var(--vscode-panel-border,#d4d9de));
--ji-code:color-mix(in srgb,var(--ji-fg) 6%%,var(--ji-bg));
--ji-mono:var(--jp-code-font-family,ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace);
box-sizing:border-box;max-width:1000px;margin:4px 0;border:1px solid var(--ji-line);border-radius:6px;overflow:hidden;
container-type:inline-size;
background:var(--ji-bg);color:var(--ji-fg);
font:13px/1.5 var(--jp-content-font-family,system-ui,"DejaVu Sans",sans-serif)}
@media(prefers-color-scheme:dark){.ji-panel{%(dark)s
--ji-bg:var(--jp-layout-color0,var(--vscode-editor-background,#1b1d21));
--ji-fg:var(--jp-content-font-color1,var(--vscode-editor-foreground,#e6e8eb));
--ji-dim:var(--jp-ui-font-color2,var(--vscode-descriptionForeground,#a2abb5));
--ji-line:var(--jp-border-color2,var(--vscode-panel-border,#3b4047))}}
[data-jp-theme-light=true] .ji-panel,.vscode-light .ji-panel{%(light)s}
[data-jp-theme-light=false] .ji-panel,.vscode-dark .ji-panel,.vscode-high-contrast .ji-panel{%(dark)s}
.ji-panel *{box-sizing:border-box}
.ji-panel p,.ji-panel ul,.ji-panel ol,.ji-panel pre,.ji-panel figure{margin:0}
.ji-panel code,.ji-panel pre,.ji-mono{font-family:var(--ji-mono);font-size:.92em;background:none;color:inherit;
padding:0;border:0}
.ji-word{display:inline-block;margin-right:6px;color:var(--ji-bad)}
.ji-part{padding:10px 16px;border-top:1px solid var(--ji-line)}
.ji-part>header{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 16px;margin-bottom:6px}
.ji-part h4{margin:0;font:600 11px/1.8 inherit;font-size:11px;letter-spacing:.05em;text-transform:uppercase;
color:var(--ji-dim)}
.ji-tally,.ji-note{color:var(--ji-dim)}
.ji-panel .ji-note{font-size:12px}
.ji-scroll{overflow-x:auto;scrollbar-width:thin}
.ji-panel details>summary{cursor:pointer;color:var(--ji-dim)}
.ji-panel summary:focus-visible,.ji-scroll:focus-visible{outline:2px solid var(--ji-save);outline-offset:-2px}
.ji-quiet{border-color:transparent;background:none}
.ji-quiet[open]{border-color:var(--ji-line)}
.ji-panel.ji-quiet>summary{padding:2px 8px;overflow-wrap:anywhere}
.ji-quiet>div{padding:0 8px 8px}
.ji-quiet .ji-word{color:var(--ji-good)}
.ji-lanes{display:flex}
.ji-names{flex:0 1 auto;min-width:60px;max-width:34%%;padding-right:8px;text-align:right}
.ji-names div{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.ji-lanes .ji-scroll{flex:1 1 0}
.ji-panel .ji-svg{display:block;max-width:none;font-family:inherit}
.ji-svg text{font-size:11px;fill:var(--ji-dim)}
.ji-svg .ji-version{font-size:10px}
.ji-svg .ji-count{font-size:10px}
.ji-svg .ji-red{fill:var(--ji-bad)}
.ji-rail{stroke:var(--ji-line)}
.ji-life{stroke:var(--ji-save);stroke-width:2.5}
.ji-spoilt{stroke:var(--ji-bad);stroke-width:3}
.ji-link{fill:none;stroke:var(--ji-bad);stroke-width:1.5;stroke-dasharray:4 3}
.ji-band{fill:currentColor;opacity:.1}
.ji-gap{fill:var(--ji-code);opacity:.7}
.ji-mark circle,.ji-mark path{fill:var(--ji-bg);stroke:var(--ji-save);stroke-width:2}
.ji-mark.ji-write circle{fill:var(--ji-dim);stroke:none}
.ji-mark.ji-write-bad circle{fill:var(--ji-bad);stroke:var(--ji-bg)}
.ji-mark.ji-write-mixes circle,.ji-mark.ji-write-mixes path,
.ji-mark.ji-write-unknown circle,.ji-mark.ji-write-unknown path{stroke:var(--ji-warn)}
.ji-mark.ji-saved-lost path+path{stroke:var(--ji-bad);stroke-width:1.5}
.ji-mark.ji-read-lost circle,.ji-mark.ji-read-lost path{stroke:var(--ji-bad)}
.ji-mark.ji-fold rect{fill:var(--ji-dim)}
.ji-mark text{stroke:none}
.ji-legend{display:flex;flex-wrap:wrap;gap:0 14px;font-size:12px;color:var(--ji-dim);margin-top:2px}
.ji-t0{color:var(--ji-t0)}
.ji-t1{color:var(--ji-t1)}
.ji-t2{color:var(--ji-t2)}
.ji-t3{color:var(--ji-t3)}
.ji-t4{color:var(--ji-t4)}
.ji-t5{color:var(--ji-t5)}
.ji-svg text.ji-tick{fill:currentColor}
.ji-svg text.ji-plain{fill:var(--ji-dim)}
.ji-svg text.ji-red{fill:var(--ji-bad)}
.ji-panel table{border-collapse:collapse;width:100%%;margin:0;border:0;font-size:13px;
font-variant-numeric:tabular-nums;color:inherit;background:none}
.ji-panel th,.ji-panel td{padding:3px 8px;text-align:right;vertical-align:baseline;border:0;
border-bottom:1px solid var(--ji-line);white-space:nowrap;background:none;color:inherit}
.ji-panel tbody tr{background:none}
.ji-panel tbody tr:last-child>*{border-bottom:0}
.ji-panel th{font-weight:400}
.ji-panel thead th{color:var(--ji-dim)}
.ji-panel th:first-child,.ji-panel .ji-left{text-align:left}
.ji-panel tbody th{white-space:normal;overflow-wrap:anywhere;min-width:150px}
.ji-panel td small{display:block;white-space:normal;color:var(--ji-dim);font-size:11px}
.ji-chip{display:inline-block;padding:0 5px;border-radius:3px;margin-right:4px}
.ji-raises,.ji-lost,.ji-wrong{color:var(--ji-bad)}
.ji-not-known{color:var(--ji-warn)}
.ji-equal{color:var(--ji-good)}
.ji-panel td.ji-h1{background:color-mix(in srgb,var(--ji-bad) 5%%,transparent)}
.ji-panel td.ji-h2{background:color-mix(in srgb,var(--ji-bad) 10%%,transparent)}
.ji-panel td.ji-h3{background:color-mix(in srgb,var(--ji-bad) 14%%,transparent)}
.ji-panel td.ji-h4{background:color-mix(in srgb,var(--ji-bad) 20%%,transparent)}
@container(max-width:480px){.ji-panel .ji-part,.ji-head{padding-left:10px;padding-right:10px}
.ji-panel table{font-size:12px}.ji-panel th,.ji-panel td{padding:3px 4px}.ji-panel tbody th{min-width:84px}
.ji-panel td .ji-chip{display:block;margin:0;padding:0}.ji-row{padding:1px 6px}.ji-source,.ji-diff{font-size:12px}}
@media(forced-colors:active){.ji-panel{border-color:CanvasText}.ji-pill,.ji-chip{border:1px solid}
.ji-mark *,.ji-life,.ji-link{stroke:CanvasText}}
@media print{.ji-panel{break-inside:avoid-page}}
"""

# rules that a quiet line does not need
_LOUD = """
.ji-head{padding:10px 16px;border-left:4px solid var(--ji-good)}
.ji-head p:first-child{font-size:14px;overflow-wrap:anywhere}
.ji-head strong,.ji-head .ji-word{font-weight:600}
.ji-head code{font-weight:500}
.ji-rejected,.ji-breaks,.ji-corrupts,.ji-cuts{border-left-color:var(--ji-bad);background:var(--ji-bad-bg)}
.ji-mixes,.ji-unknown{border-left-color:var(--ji-warn);background:var(--ji-warn-bg)}
.ji-mixes .ji-word,.ji-unknown .ji-word{color:var(--ji-warn)}
.ji-list{margin-top:4px;font-size:12px}
.ji-list ol{padding-left:24px}
.ji-source{background:var(--ji-code);border-radius:4px;padding:4px 0;font-size:13px}
[data-ji=mutation]+[data-ji=mutation]{margin-top:10px}
.ji-row{display:flex;flex-wrap:wrap;justify-content:space-between;align-items:baseline;gap:0 16px;padding:1px 10px}
.ji-row.ji-hot{background:var(--ji-bad-bg)}
.ji-mixed .ji-row.ji-hot{background:var(--ji-warn-bg)}
.ji-row pre{white-space:pre-wrap;overflow-wrap:anywhere;flex:0 1 auto}
.ji-no{display:inline-block;min-width:2.4em;color:var(--ji-dim);user-select:none}
.ji-w{text-decoration:underline solid 2px var(--ji-bad);text-underline-offset:3px}
.ji-mixed .ji-w{text-decoration-color:var(--ji-warn)}
.ji-v{text-decoration:underline dotted 2px var(--ji-save);text-underline-offset:3px}
.ji-row .ji-note{flex:0 1 auto;margin-left:auto;text-align:right}
.ji-file{padding:0 10px;color:var(--ji-dim);font-size:12px;overflow-wrap:anywhere}
.ji-fix{display:flex;flex-wrap:wrap;gap:4px 12px;padding:8px 0;border-top:1px solid var(--ji-line)}
.ji-fix:first-of-type{border-top:0}
.ji-pill{flex:0 0 92px;align-self:flex-start;padding:0 8px;border-radius:9px;font-size:12px;background:var(--ji-code)}
.ji-passed{color:var(--ji-good);background:var(--ji-good-bg)}
.ji-failed{color:var(--ji-bad);background:var(--ji-bad-bg)}
.ji-unverified{color:var(--ji-warn);background:var(--ji-warn-bg)}
.ji-fix>div{flex:1 1 260px;min-width:0;overflow-wrap:anywhere}
.ji-diff{background:var(--ji-code);border-radius:4px;padding:4px 10px;white-space:pre-wrap;overflow-wrap:anywhere}
.ji-panel .ji-diff,.ji-panel pre.ji-cell{background:var(--ji-code);padding:4px 10px}
.ji-del{color:var(--ji-bad)}
.ji-add{color:var(--ji-good)}
pre.ji-cell{white-space:pre-wrap;overflow-wrap:anywhere}
"""


def sheet(quiet: bool) -> Markup:
    """The `style` element for a quiet line or for a whole panel."""
    rules = (_BASE + ("" if quiet else _LOUD)) % {"light": _LIGHT, "dark": _DARK}
    return Markup(f"<style>{rules.replace(chr(10), '')}</style>")
