"""The embedded tier: data drawn by this code, and the checkpoints trained on it."""

from pathlib import Path

ROOT = Path(__file__).parent
DATA = ROOT / "data"
CHECKPOINTS = ROOT / "checkpoints"
SIDE = 28
"""Pixels of what one visual token of Qwen2-VL shows: 2x2 patches of 14."""
