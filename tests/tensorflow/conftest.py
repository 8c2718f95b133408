"""Tests of TensorFlow's part. `make tensorflow-test` runs them where TensorFlow is installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "magic"))

pytest.importorskip("tensorflow", reason="TensorFlow is not installed here: `make tensorflow-test` installs it")
