"""A checkpoint of every architecture: the one that ships, else one with random weights."""

import functools
import importlib
import pkgutil
from dataclasses import replace

import torch
from answered import Few

from vlmbench import catalogue, selection
from vlmbench.artifacts import Store
from vlmbench.chain import Chain
from vlmbench.compressed import load_once
from vlmbench.compression.awq import Search
from vlmbench.compression.finetune import FineTune
from vlmbench.embedded import blank
from vlmbench.spec import Source

NAMES = sorted(m.name for m in pkgutil.iter_modules(blank.__path__) if m.name[0] != "_")


def source_of(name, folder):
    """Where the checkpoint of model `name` is; `folder` takes what has to be made."""
    model = catalogue.models()[name]
    if "embedded" in model.sources:
        return model.sources["embedded"]
    untrained = importlib.import_module(f"{blank.__name__}.{name}")
    processor = untrained.processor(untrained.tokenizer())
    torch.manual_seed(0)
    network = untrained.network(processor.tokenizer)
    for name_of, parameter in network.named_parameters():
        # What starts as zero would hide what comes of it; so would what starts small what is shown.
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
        if "patch_embed" in name_of or "embed_tokens" in name_of or "token_embed" in name_of:
            parameter.data.mul_(20)
    network.to(torch.bfloat16).save_pretrained(folder / name)
    processor.save_pretrained(folder / name)
    return Source(str(folder / name))


class Checkpoints:
    """Variants of every architecture by name, each loaded once; makers learn from `Few`."""

    def __init__(self, folder):
        self.source = functools.cache(lambda name: source_of(name, folder))
        self.variant = functools.lru_cache(maxsize=2)(self.load)
        self.store = Store(folder / "store")

    def load(self, name, recipe="32bit"):
        """`recipe`: as users type it."""
        return self.loaded(name, quick(selection.compression(recipe, catalogue.compressions())))

    def loaded(self, name, compression, store=None):
        """The variant of a compression, kept in a store of its own where one is named."""
        model, source = catalogue.models()[name], self.source(name)
        model = replace(model, sources={"embedded": source})
        return load_once(
            model, compression, source, store or self.store, Few, device="cpu", dtype=None
        )


def quick(compression):
    """A recipe that searches less, and learns for one epoch."""
    if isinstance(compression, Chain):
        return replace(compression, parts=tuple(map(quick, compression.parts)))
    if hasattr(compression, "tuning"):
        return replace(compression, tuning=quick(compression.tuning))
    if isinstance(compression, FineTune):
        return replace(compression, epochs=1, batch=2)
    if isinstance(getattr(compression, "preparation", None), Search):
        return replace(compression, preparation=Search(powers=3, shrinks=2))
    return compression
