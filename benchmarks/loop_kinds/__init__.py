"""Loops as people write them, each a function that makes its model and gives `run(count)`."""

from benchmarks.loop_kinds.loop import Loop
from benchmarks.loop_kinds.models import MODELS
from benchmarks.loop_kinds.policies import POLICIES
from benchmarks.loop_kinds.sequences import SEQUENCES
from benchmarks.loop_kinds.surroundings import SURROUNDINGS

LOOPS: tuple[Loop, ...] = (*SEQUENCES, *POLICIES, *MODELS, *SURROUNDINGS)
