"""Saved tensors: what autograd keeps for backward, and where in memory it lies.

`Saved` is the object that our pack hook hands to autograd. It lives exactly as long as the saved variable, so a weak
reference to it tells whether anybody can still read it. It keeps what autograd itself would keep: the very tensor for an
input (so that `x.data = t` shows through, as it does unwatched), an alias for an output (the output itself would keep its
own node alive in a cycle).
"""

from __future__ import annotations

import weakref
from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Any

import torch

from jupyter_inplace.record.base.geometry import View
from jupyter_inplace.record.base.memory import storages_of


class Saved:
    """One saved tensor of one node.

    `sequence` is the number of the node being made when it was packed (views written in place regenerate their node,
    so it can be a few numbers late), `order` its place in program order, `made_by` the type of the node whose output it
    is, None for an input, `clone` the copy made before the first overlapping write.
    """

    __slots__ = (
        "__weakref__",
        "cell",
        "clone",
        "fingerprint",
        "hold",
        "home",
        "interior",
        "made_by",
        "module",
        "never_read",
        "order",
        "output_nr",
        "sequence",
        "site",
        "tensor",
        "touched",
        "uncopied",
        "version",
        "view",
    )

    tensor: torch.Tensor
    version: int | None
    sequence: int
    order: int
    site: Any
    module: Any
    made_by: type | None
    output_nr: int
    cell: list[Any] | None  # one item: the operation that saved it, once that is dispatched
    clone: torch.Tensor | None
    view: View | None  # where it lay when it was copied: a later `unsqueeze_` or `set_` moves it
    touched: bool
    uncopied: bool  # a write overlapped it, and no copy could be made before: what it held is lost
    never_read: bool
    hold: Any  # keeps the objects that a custom Function saves coming back as they are
    fingerprint: bool
    interior: bool  # an input that was no leaf when it was saved
    home: Bucket | None  # where it was sorted in, None before

    def __getattr__(self, name: str) -> Any:
        # A slot that was never set. Most of them never are, and setting one costs each operation of the program.
        try:
            return _UNSET[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def op(self) -> Any:
        """The operator that saved it, None where that was not seen."""
        return self.cell[0] if self.cell is not None else None

    @property
    def overwritten(self) -> bool:
        """Whether torch's own check would refuse this saved tensor now."""
        if self.interior:
            try:
                if self.tensor.grad_fn is None:  # detached in place since
                    return True
            except RuntimeError:  # a view whose base was written in a way that torch cannot follow
                return True
        return self.version is not None and self.tensor._version != self.version

    @property
    def value(self) -> torch.Tensor:
        """What the forward wrote down: the copy where there is one, else the memory itself."""
        return self.tensor if self.clone is None else self.clone


_UNSET: dict[str, Any] = {
    **dict.fromkeys(("cell", "clone", "home", "made_by", "module", "site", "version", "view")),
    **dict.fromkeys(("fingerprint", "interior", "never_read", "touched", "uncopied"), False),
    **dict.fromkeys(("order", "output_nr"), 0),
}


class Hit:
    """That one row of writes covered bytes `lo` to `hi` of a storage, between two moments of program order."""

    __slots__ = ("first", "hi", "last", "lo", "view", "write")

    def __init__(self, write: Any, order: int, lo: int, hi: int, view: View | None) -> None:
        self.write, self.first, self.last, self.lo, self.hi, self.view = write, order, order, lo, hi, view


class Bucket:
    """The saved tensors on one storage, and the writes to it since the first of them was saved.

    Each saved tensor stands in `saved`, and until its first write in `untouched` as well (in `unread` where that was only
    the operation's own update of its running statistics). Then it is sorted into `intact` until it is copied: a write
    finds those that it overlaps there without going through the rest.
    """

    __slots__ = ("hits", "intact", "keys", "saved", "unread", "untouched")

    _KEPT = 512  # different (row, range) pairs kept apart; after that a row's ranges melt into their hull

    def __init__(self) -> None:
        self.saved: list[weakref.ref[Saved]] = []
        self.untouched: list[weakref.ref[Saved]] = []
        self.unread: list[weakref.ref[Saved]] = []
        self.intact = Intervals()
        self.hits: list[Hit] = []
        self.keys: dict[Any, Hit] = {}

    def add(self, ref: weakref.ref[Saved], *, never_read: bool) -> None:
        self.saved.append(ref)
        (self.unread if never_read else self.untouched).append(ref)

    def live(self) -> list[Saved]:
        alive = [saved for ref in self.saved if (saved := ref()) is not None]
        if len(alive) < len(self.saved) // 2:
            self.saved = [weakref.ref(saved) for saved in alive]
        return alive

    def any_alive(self) -> bool:
        """Whether a saved tensor lives here."""
        return _any_alive(self.saved)

    def never_touched(self, *, unread: bool) -> list[Saved]:
        """Takes out the saved tensors that are about to be written for the first time."""
        refs, self.untouched = self.untouched, []
        if unread and self.unread:
            refs, self.unread = refs + self.unread, []
        return [saved for ref in refs if (saved := ref()) is not None]

    def log(self, write: Any, order: int, lo: int, hi: int, view: View | None) -> None:
        key: tuple[int, int | None, int | None] = (id(write), lo, hi)
        hit = self.keys.get(key)
        if hit is None and len(self.hits) >= self._KEPT:
            key = (id(write), None, None)
            hit = self.keys.get(key)
        if hit is None:
            hit = self.keys[key] = Hit(write, order, lo, hi, view)
            self.hits.append(hit)
            return
        hit.last = order
        if lo < hit.lo or hi > hit.hi:
            hit.lo, hit.hi, hit.view = min(lo, hit.lo), max(hi, hit.hi), None


def _any_alive(saved: list[weakref.ref[Saved]]) -> bool:
    """Whether one of them lives. Dead ones are forgotten on the way, so that nobody meets them twice."""
    while saved:
        if saved[-1]() is not None:
            return True
        saved.pop()
    return False


class Intervals:
    """Saved tensors by the bytes that they cover, found again by a range that meets them.

    Sorted by their first byte, apart by the power of two of their length: of each length only the neighbours are looked at.
    """

    __slots__ = ("_by_length",)

    def __init__(self) -> None:
        self._by_length: dict[int, list[tuple[int, int, weakref.ref[Saved], int]]] = {}

    def add(self, saved: Saved, lo: int, hi: int) -> None:
        if hi > lo:
            entry = (lo, saved.order, weakref.ref(saved), hi)
            insort(self._by_length.setdefault((hi - lo).bit_length(), []), entry, key=_place)

    def take(self, lo: int, hi: int) -> list[Saved]:
        """The living ones that share bytes with `lo` to `hi`; they are taken out, and the dead ones among them."""
        found: list[Saved] = []
        for bits, entries in self._by_length.items():
            first = bisect_left(entries, lo - (1 << bits), key=_start)
            last = bisect_left(entries, hi, first, key=_start)
            if first == last:
                continue
            rest = []
            for entry in entries[first:last]:
                saved = entry[2]()
                if saved is None:
                    continue
                if entry[3] > lo:
                    found.append(saved)
                else:
                    rest.append(entry)
            entries[first:last] = rest
        return found


def _place(entry: tuple[int, int, Any, int]) -> tuple[int, int]:
    return entry[0], entry[1]


def _start(entry: tuple[int, int, Any, int]) -> int:
    return entry[0]


class SavedIndex:
    """Every live saved tensor of the trace by storage.

    Filled lazily: a pack costs one weak reference, the next write a look-up of where that lies, and only a write there a bucket.
    """

    def __init__(self) -> None:
        self.pending: list[weakref.ref[Saved]] = []  # to be sorted at the next write
        self._sorted: dict[int, list[weakref.ref[Saved]]] = {}  # by storage: to be put into its bucket
        self._buckets: dict[int, Bucket] = {}
        self._prune_at = 512
        self.prune_pending_at = 65536
        self.touched: list[weakref.ref[Saved]] = []

    def add(self, saved: Saved) -> None:
        self.pending.append(weakref.ref(saved))
        if len(self.pending) > self.prune_pending_at:
            self.prune()

    def prune(self) -> None:
        """Forget the dead among what no write has sorted yet. Worth it once there are more than `prune_pending_at`."""
        self.pending = [ref for ref in self.pending if ref() is not None]
        self.prune_pending_at = max(65536, 2 * len(self.pending))

    def newer_than(self, order: int) -> Iterator[Saved]:
        """What was packed after a moment of program order, newest first, of what no write has sorted yet."""
        for ref in reversed(self.pending):
            saved = ref()
            if saved is not None:
                if saved.order <= order:
                    return
                yield saved

    def _sort(self) -> None:
        pending, self.pending = self.pending, []
        known = self._sorted
        for ref in pending:
            saved = ref()
            if saved is not None:
                for key in storages_of(saved.tensor):
                    others = known.get(key)
                    if others is None:
                        known[key] = [ref]
                    else:
                        others.append(ref)
        if len(known) + len(self._buckets) > self._prune_at:
            self._sorted = {
                key: alive for key, refs in known.items() if (alive := [ref for ref in refs if ref() is not None])
            }
            self._buckets = {key: bucket for key, bucket in self._buckets.items() if bucket.any_alive()}
            self._prune_at = max(512, 2 * (len(self._sorted) + len(self._buckets)))

    def _put_into_bucket(self, storage: int, refs: list[weakref.ref[Saved]]) -> None:
        bucket = self._buckets.get(storage)
        for ref in refs:
            saved = ref()
            if saved is not None:
                if bucket is None:
                    bucket = self._buckets[storage] = Bucket()
                bucket.add(ref, never_read=saved.never_read)
                saved.home = saved.home or bucket

    def _put_all(self) -> None:
        if self.pending:
            self._sort()
        known, self._sorted = self._sorted, {}
        for storage, refs in known.items():
            self._put_into_bucket(storage, refs)

    def bucket(self, storage: int) -> Bucket | None:
        """The bucket of a storage on which a saved tensor lives, else None. Addresses are reused: a dead bucket goes."""
        if self.pending:
            self._sort()
        refs = self._sorted.pop(storage, None)
        if refs is not None:
            self._put_into_bucket(storage, refs)
        bucket = self._buckets.get(storage)
        if bucket is not None and not bucket.any_alive():
            del self._buckets[storage]
            return None
        return bucket

    def any_alive(self) -> bool:
        """Whether any saved tensor lives at all. Dead ones that stand in the way are forgotten."""
        if _any_alive(self.pending):
            return True
        while self._sorted:
            storage, refs = self._sorted.popitem()
            if _any_alive(refs):
                self._sorted[storage] = refs
                return True
        while self._buckets:
            storage, bucket = self._buckets.popitem()
            if bucket.any_alive():
                self._buckets[storage] = bucket
                return True
        return False

    def holds(self, storage: int) -> bool:
        """Whether a live saved tensor lies on a storage."""
        return bool(storage) and self.bucket(storage) is not None

    def bucket_of(self, saved: Saved) -> Bucket | None:
        """The bucket in which `saved` stands, wherever its tensor lies by now (`set_`, `.data =`, a sparse `mul_`)."""
        if saved.home is None:
            self._put_all()
        return saved.home

    def touch(self, saved: Saved) -> None:
        if not saved.touched:
            saved.touched = True
            self.touched.append(weakref.ref(saved))

    def touched_live(self) -> list[Saved]:
        """Saved tensors whose storage was written since, and which somebody can still read."""
        alive = [saved for ref in self.touched if (saved := ref()) is not None]
        if len(alive) < len(self.touched):
            self.touched = [weakref.ref(saved) for saved in alive]
        return alive

    def __iter__(self) -> Iterator[Saved]:
        self._put_all()
        for bucket in list(self._buckets.values()):
            yield from bucket.live()
