// A report as `to_dict()` gives it: the cell of shared/mock, numbers of torch 2.13 with seed 3.

const SOURCE = `%%autograd_watch
torch.manual_seed(3)
x = torch.randn(4, 6)
trunk = nn.Linear(6, 5); heads = nn.ModuleDict({"seg": nn.Linear(5, 2), "depth": nn.Linear(5, 1)})
z = torch.tanh(trunk(x))
seg = heads["seg"](z).pow(2).mean()
z.mul_(0.5)  # keep the activations small
depth = heads["depth"](z).abs().mean()
(seg + depth).backward()
`;

export type Json = Record<string, unknown>;

export function site(line: number, text: string): Json {
  const whole = SOURCE.split("\n")[line - 1] ?? "";
  const column = whole.indexOf(text);
  return {
    file: "In[7]",
    line,
    column,
    end_line: line,
    end_column: column + text.length,
    text,
    line_text: whole.trim(),
    function: "<module>",
    cell_line: line,
  };
}

function mutation(id: number, verdict: string, tensor: string, at: Json): Json {
  return {
    id,
    op: "aten.mul_.Tensor",
    tensor,
    shape: [4, 5],
    dtype: "float32",
    device: "cpu",
    storage: 5,
    versions: [0, 1],
    time: 0.002,
    count: 1,
    site: at,
    verdict,
    pending: false,
    value_changed: true,
    tasks: verdict === "harmless" ? [] : ["seg", "depth"],
    leaves: verdict === "harmless" ? [] : ["trunk.weight"],
  };
}

function gradient(task: string, leaf: string, status: string, more: Json = {}): Json {
  return {
    task,
    leaf,
    status,
    norm_as_run: null,
    norm_reference: 0.205,
    relative_difference: null,
    cosine: null,
    occurrence: null,
    ...more,
  };
}

function event(seq: number, kind: string, tensor: string | null, more: Json = {}): Json {
  return {
    seq,
    time: 0,
    kind,
    tensor,
    version: 0,
    site: null,
    task: null,
    mutation: null,
    conflict: null,
    count: 1,
    ...more,
  };
}

export function example(): Json {
  const backward = site(9, "(seg + depth).backward()");
  return {
    format: "jupyter-inplace/report",
    version: 1,
    tool: "0.1.0",
    framework: "torch",
    framework_version: "2.13.0",
    rank: null,
    verdict: "breaks",
    summary:
      "backward fails for seg and depth: z.mul_(0.5) (line 7) overwrote what torch.tanh(trunk(x)) (line 5) saved.",
    cell: { source: SOURCE, id: "8d0f6c1e", execution_count: 7 },
    error: null,
    mutations: [
      mutation(0, "breaks", "z", site(7, "z.mul_(0.5)")),
      mutation(1, "harmless", "trunk.weight", site(4, "nn.Linear(6, 5)")),
    ],
    conflicts: [
      {
        mutation: 0,
        node: "TanhBackward0",
        saved_as: "result",
        tensor: "z",
        saved_version: 0,
        found_version: 1,
        bytes_overlapping: 80,
        saved_site: site(5, "torch.tanh(trunk(x))"),
        module: null,
        tasks: ["seg", "depth"],
        leaves: ["trunk.weight"],
      },
    ],
    tasks: [
      { name: "seg", status: "raises", site: backward },
      { name: "depth", status: "raises", site: backward },
    ],
    gradients: [
      gradient("seg", "trunk.weight", "raises"),
      gradient("depth", "trunk.weight", "raises", { norm_reference: 0.208 }),
      gradient("depth", "heads.depth.weight", "ok", {
        norm_as_run: 0.279,
        norm_reference: 0.279,
        relative_difference: 0,
      }),
      gradient("seg", "heads.seg.weight", "wrong", {
        norm_as_run: 0.4,
        norm_reference: 0.3,
        relative_difference: 0.33,
        cosine: 0.9,
      }),
    ],
    task_cosines: [{ leaf: "trunk.weight", tasks: ["seg", "depth"], as_run: null, reference: -0.57 }],
    timeline: [
      event(0, "write", "trunk.weight", { version: 1, site: site(4, "nn.Linear(6, 5)"), mutation: 1 }),
      event(1, "save", "z", { site: site(5, "torch.tanh(trunk(x))"), conflict: 0 }),
      event(2, "save", "trunk.weight", { version: 1, site: site(5, "trunk(x)") }),
      event(3, "write", "z", { version: 1, site: site(7, "z.mul_(0.5)"), mutation: 0 }),
      event(4, "save", "z", { version: 1, site: site(8, 'heads["depth"](z)') }),
      event(5, "backward", null, { task: "seg", site: backward }),
      event(6, "backward", null, { task: "depth", site: backward }),
      event(7, "read", "z", { version: 1, task: "seg", site: backward, conflict: 0 }),
      event(8, "read", "z", { version: 1, task: "depth", site: backward }),
    ],
    fixes: [
      {
        id: 0,
        mutations: [0],
        kind: "out_of_place",
        title: "multiply out of place",
        source: SOURCE.replace("z.mul_(0.5)", "z = z.mul(0.5)"),
        diff: "",
        extra_bytes: 80,
        reading: null,
        verification: {
          status: "passed",
          covered: null,
          runs: true,
          verdict: "harmless",
          losses_equal: true,
          gradients_equal: true,
          reason: null,
          gradients: [gradient("seg", "trunk.weight", "ok"), gradient("depth", "trunk.weight", "ok")],
        },
      },
      {
        id: 1,
        mutations: [0],
        kind: "clone",
        title: "clone at the save",
        source: SOURCE.replace("torch.tanh(trunk(x))", "torch.tanh(trunk(x)).clone()"),
        diff: "",
        extra_bytes: 80,
        reading: null,
        verification: {
          status: "failed",
          runs: false,
          losses_equal: null,
          gradients_equal: null,
          reason: "seg still raises",
        },
      },
    ],
    blind_spots: [],
  };
}
