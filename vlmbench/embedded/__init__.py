"""The embedded tier: data drawn by this code, and the checkpoints trained on it."""

from pathlib import Path

ROOT = Path(__file__).parent
DATA = ROOT / "data"
CHECKPOINTS = ROOT / "checkpoints"
