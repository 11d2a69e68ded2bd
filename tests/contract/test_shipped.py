"""Compressed, written, and loaded by a process of its own: the same numbers, whatever the recipe.

Recipes are those of the catalogue, learning from less, and a few chains. How folders are written
and refused: tests/unit.
"""

import os
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from functools import partial
from importlib.util import find_spec

import pytest
import torch
from checkpoints import source_of
from PIL import Image
from safetensors.torch import load_file, save_file

from vlmbench import shipping
from vlmbench.artifacts import Store
from vlmbench.catalogue import compressions, models
from vlmbench.compressed import load_once
from vlmbench.compression.precision import STORED
from vlmbench.options import catalogued
from vlmbench.prompting import encode, taken_by
from vlmbench.selection import compression
from vlmbench.shipped import is_stored, parts_of
from vlmbench.spec import Mixture, Runtime, Source, Turn
from vlmbench.traindata import TrainSamples
from vlmbench.variant import load, quiet

FEW = Mixture(2, ("vqav2",))
SEARCHED = {"powers": 3, "shrinks": 2}
CHAINS = ("lowrank80+4bit", "depth50+sq_w8a8_token", "prune24+8bit", "depth50+lowrank50+16bit")

LACKING = set() if find_spec("peft") else {"lora"}
RECIPES = [
    name
    for name, recipe in compressions().items()
    if not any(isinstance(part, Runtime) for part in parts_of(recipe))
    and not is_stored(recipe)
    and name not in LACKING
    and "_on_" not in name  # learns from one data set, as all do here
]


def quick(part):
    """A recipe that learns from few samples and tries little."""
    if isinstance(part, Mixture):
        return FEW
    if isinstance(part, tuple):
        return tuple(map(quick, part))
    if not is_dataclass(part):
        return part
    changed = {f.name: SEARCHED.get(f.name, quick(getattr(part, f.name))) for f in fields(part)}
    return replace(part, **changed)


def answers(variant):
    """Logits of a prompt and the tokens that are answered, of a variant that has not yet run."""
    turn = taken_by(variant.model, Turn((png(),), "What color is the star?", "Answer briefly."))
    inputs = encode(variant.processor, [turn])
    with torch.inference_mode(), quiet():
        logits = variant.network(**inputs).logits
    ids = variant.generate(inputs, max_new_tokens=6, min_new_tokens=6)
    return {"logits": logits.clone(), "ids": ids.clone()}


def png():
    import io

    out = io.BytesIO()
    pixels = torch.rand(5, 5, 3, generator=torch.Generator().manual_seed(1)) * 255
    Image.fromarray(pixels.byte().numpy()).resize((112, 112)).save(out, "PNG")
    return out.getvalue()


ELSEWHERE = """
import sys
from pathlib import Path
from test_shipped import there
there(sys.argv[1], Path(sys.argv[2]))
"""


def there(name, folder):
    """What every folder in `folder` answers, written beside it."""
    for shipped in [path for path in folder.iterdir() if path.is_dir()]:
        variant = load(models()[name], STORED, Source(str(shipped)))
        save_file(answers(variant), shipped.with_suffix(".safetensors"))


@pytest.mark.parametrize("name", ["qwen2", "phi3_5", "blip2"])
def test_it_answers_alike_in_another_process(name, tmp_path):
    model, source, store = models()[name], source_of(name, tmp_path), Store(tmp_path / "cache")
    data = partial(TrainSamples, catalogued().datasets, "embedded")
    known = {recipe: quick(compressions()[recipe]) for recipe in RECIPES}
    here = {}
    (tmp_path / "shipped").mkdir()
    for recipe in (*RECIPES, *CHAINS):
        chosen = compression(recipe, known)
        made = load_once(model, chosen, source, store, data, device="cpu", dtype=None)
        with shipping.unfinished(tmp_path / "shipped" / recipe) as part:
            shipping.write(made, part)
        here[recipe] = answers(made)
    command = [sys.executable, "-c", ELSEWHERE, name, str(tmp_path / "shipped")]
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=True)
    differing = []
    for recipe, made in here.items():
        again = load_file(tmp_path / "shipped" / f"{recipe}.safetensors")
        if not all(torch.equal(again[part], made[part]) for part in ("logits", "ids")):
            differing.append(recipe)
    assert differing == []
    assert len({tuple(made["logits"].flatten()[-9:].tolist()) for made in here.values()}) > 9
