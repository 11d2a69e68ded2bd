"""A checkpoint of every architecture: the one that ships, else one with random weights."""

import functools
import importlib
import pkgutil
from dataclasses import replace

import torch

from vlmbench import catalogue
from vlmbench.embedded import blank
from vlmbench.spec import Source
from vlmbench.variant import load

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
    """Variants of every architecture by name, each loaded once."""

    def __init__(self, folder):
        self.source = functools.cache(lambda name: source_of(name, folder))
        self.variant = functools.lru_cache(maxsize=2)(self.load)

    def load(self, name, recipe="32bit"):
        model, source = catalogue.models()[name], self.source(name)
        model = replace(model, sources={"embedded": source})
        return load(model, catalogue.compressions()[recipe], source)
