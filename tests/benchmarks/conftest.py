"""Where the demo snapshots are, and how exactly they must be met."""

from pathlib import Path

import pytest
from syrupy.extensions.amber import AmberSnapshotExtension

from vlmbench import baseline as baselines

CLOSE = 0.95
"""BERTScore F1 that a demo answer must reach where it was made on another kind of machine."""
_DECISIVE = (
    "device_kind",
    "device_name",
    "cpu_capability",
    "torch",
    "transformers",
    "bitsandbytes",
)
NOISE = 0.5
"""Mean BERTScore below which a cell's answers are noise: another kind of machine makes another."""


@pytest.fixture
def snapshot(snapshot, vlmbench_cell, bench, run):
    """One readable file a variant; exact where device kind and versions are those of the baseline.

    Elsewhere rounding may change a word, so the answer must only mean the same. Where a recipe has
    left nothing but noise, nothing is asked of it there.
    """
    path, tier = bench.baseline_path(vlmbench_cell), bench.options.tier
    baseline = baselines.load(path, vlmbench_cell.id, tier)
    made = baseline.environment
    here = all(made.get(name) == run.environment.get(name) for name in _DECISIVE)
    noise = baseline.mean("bertscore") < NOISE
    variant = vlmbench_cell.variant
    folder = Path(__file__).parent / "__snapshots__" / tier
    score = bench.entries.metrics["bertscore"].score

    class OneFileAVariant(AmberSnapshotExtension):
        @classmethod
        def get_file_basename(cls, *, test_location, index):
            return variant

        @classmethod
        def dirname(cls, *, test_location):
            return str(folder)

        @classmethod
        def matches_test_location(cls, *, test_location, snapshot_location):
            return Path(snapshot_location).stem == variant

        def matches(self, *, serialized_data, snapshot_data):
            if serialized_data == snapshot_data or here:
                return serialized_data == snapshot_data
            return noise or score([str(serialized_data)], [[str(snapshot_data)]])[0] >= CLOSE

    return snapshot.use_extension(OneFileAVariant)
