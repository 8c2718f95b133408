"""Rows of writes: one row per (site, operation, storage), however often a loop runs through it."""

from __future__ import annotations

from typing import Any


class WriteRow:
    """One row: an operation that wrote to a tensor, at one place of the source, once or many times.

    Plain values only, no tensor: a row must not keep anything of the user's alive. `first` and `last` are places in
    program order, `sequences` the node numbers current at the write where it changed a leaf (a reader with a lower
    number read the old value), `versions` the counter before the first and after the last write.
    """

    __slots__ = (
        "bracket",
        "by_engine",
        "count",
        "device",
        "dtype",
        "first",
        "grad_mode",
        "hidden",
        "itemsize",
        "last",
        "leaf",
        "module",
        "name",
        "number",
        "op",
        "optimizer",
        "requires_grad",
        "sequences",
        "shape",
        "site",
        "storage",
        "thread",
        "time",
        "version_after",
        "version_before",
    )

    _SEQUENCES = 64

    def __init__(self, op: str, site: Any, module: Any, storage: int, time: float, order: int) -> None:
        self.op, self.site, self.module, self.storage, self.time = op, site, module, storage, time
        self.first = self.last = order
        self.count = 0
        self.number = 0
        self.shape: tuple[int, ...] = ()
        self.dtype = self.device = ""
        self.itemsize = 0
        self.version_before: int | None = None
        self.version_after: int | None = None
        self.sequences: list[int] = []
        self.leaf = self.grad_mode = self.requires_grad = self.hidden = self.by_engine = False
        self.optimizer: Any = None
        self.name: str | None = None  # what the tensor is called, where that was known when it was written
        self.thread: str | None = None  # the name of another thread than the watched one
        self.bracket: Any = None  # of an external write, whose own site nobody saw

    def describe(self, t: Any, shape: tuple[int, ...], version: int | None) -> None:
        """The first write of the row: what the tensor was before it."""
        self.shape, self.dtype, self.device = shape, str(t.dtype).removeprefix("torch."), str(t.device)
        self.version_before = self.version_after = version

    def happened(self, order: int, version: int | None, *, bumps: bool) -> None:
        """One more write, at a moment of program order; `version` is the counter before it."""
        self.count += 1
        self.last = order
        self.version_after = None if version is None else version + bumps

    def changed_leaf(self, sequence: int) -> None:
        """Note that a leaf changed when the next node was to get `sequence`; the newest ones are kept."""
        if not self.sequences or self.sequences[-1] != sequence:
            self.sequences.append(sequence)
            if len(self.sequences) > self._SEQUENCES:
                del self.sequences[1]


class WriteTable:
    """All rows of a trace, found again by (site, operation, storage)."""

    _STORAGES_PER_SITE = 256
    # Rows of a place, after which a further one is taken to be that of a temporary: in the program's own loops, in a module.
    _TEMPORARIES = (8, 3)

    def __init__(self) -> None:
        self.rows: list[WriteRow] = []
        self._by_key: dict[Any, WriteRow] = {}
        self._per_site: dict[Any, int] = {}
        self._shared: dict[Any, WriteRow] = {}
        self._full = False  # whether any site has so many storages that further ones share a row
        self.by_storage: dict[int, list[WriteRow]] = {}

    def find(self, op: str, site: Any, module_key: int, storage: int) -> WriteRow | None:
        """The row that a write has already; None where it is the first of its kind."""
        row = self._by_key.get((op, site, module_key, storage))
        if row is None and self._full:
            row = self._by_key.get((op, site, module_key, -1))
        return row

    def row(self, op: str, site: Any, module: Any, module_key: int, storage: int, time: float, order: int) -> WriteRow:
        """The row for this write, made where there is none. Past 256 storages a site's further ones share a row."""
        key = (op, site, module_key, storage)
        row = self._by_key.get(key)
        if row is not None:
            return row
        place = (op, site, module_key)
        seen = self._per_site.get(place, 0)
        if seen >= self._STORAGES_PER_SITE:
            key = (op, site, module_key, -1)
            self._full = True
            row = self._by_key.get(key)
            if row is not None:
                return row
            storage = -1
        self._per_site[place] = seen + 1
        row = self._by_key[key] = WriteRow(op, site, module, storage, time, order)
        row.number = len(self.rows)
        self.rows.append(row)
        self.by_storage.setdefault(storage, []).append(row)
        return row

    def share(self, row: WriteRow, op: str, site: Any, module_key: int) -> None:
        """Have writes to other memory at the same place entered in this row, as long as they concern nothing that is followed.

        Activations lie elsewhere in each round of a loop, and so do the masks of a dropout. Of what needs no gradient a few
        may be tensors that the program keeps, each with its row.
        """
        place = (op, site, module_key)
        alone = self._TEMPORARIES[row.module is not None]
        if row.requires_grad or self._per_site.get(place, 0) >= alone:
            self._shared[place] = row

    def shared(self, op: str, site: Any, module_key: int, storage: int) -> WriteRow | None:
        """The row for a write to memory of which this place has none yet, if there is a shared one."""
        row = self._shared.get((op, site, module_key))
        if row is not None:
            place = (op, site, module_key)
            rows = self.by_storage.get(storage, ())
            if row not in rows and (seen := self._per_site.get(place, 0)) < self._STORAGES_PER_SITE:
                self._per_site[place] = seen + 1
                self.by_storage[storage] = [*rows, row]
        return row

    def own(self, storage: int) -> list[WriteRow]:
        """The rows of this memory; those of other memories are entered in them no more. The last is of places with too many memories."""
        rows = [row for row in self.by_storage.get(storage, ()) if row.storage == storage]
        if any(row in rows for row in self._shared.values()):
            self._shared = {place: row for place, row in self._shared.items() if row not in rows}
        return rows + self.by_storage.get(-1, [])

    def new_epoch(self) -> None:
        """Begin new rows for the same places: a nested watch or the next cell starts here."""
        self._by_key.clear()
        self._per_site.clear()
        self._shared.clear()
        self._full = False

    def keep(self, rows: set[WriteRow]) -> None:
        """Forget all other rows."""
        self.rows = [row for row in self.rows if row in rows]
        self.by_storage = {}
        for row in self.rows:
            self.by_storage.setdefault(row.storage, []).append(row)
