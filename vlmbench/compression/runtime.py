"""How a network runs, whatever it stores: kinds of attention, compilation, weights on disk.

Each goes into a chain with any other recipe (`4bit+eager`); alone it runs the float32 model, but
for FlashAttention, which takes none. Where nothing is said, attention is `sdpa`.

Papers: FlashAttention-2 (arXiv 2307.08691, https://github.com/Dao-AILab/flash-attention).
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmbench.errors import UsageError
from vlmbench.spec import Anatomy, Component

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Eager:
    """Attention spelt out, product by product, in tower and decoder."""

    name: str = "eager"

    def run_options(self, anatomy: Anatomy) -> dict[str, Any]:
        """Ask for it in place of torch's fused attention."""
        return {"attn_implementation": "eager"}

    def load_options(self, anatomy: Anatomy) -> dict[str, Any]:
        """As `32bit`."""
        return {"dtype": "float32", **self.run_options(anatomy)}

    def apply(self, model: nn.Module, anatomy: Anatomy) -> None:
        """Do nothing: the loader has chosen it."""

    def storage(self, component: Component) -> str:
        """Promise float32: nothing is compressed."""
        return "float32"


@dataclass(frozen=True)
class Flash:
    """FlashAttention-2: on CUDA, in half precision, where it is installed."""

    name: str = "flash"

    def run_options(self, anatomy: Anatomy) -> dict[str, Any]:
        """Ask for it.

        Raises:
            UsageError: it cannot run here.
        """
        import torch
        from transformers.utils.import_utils import is_flash_attn_2_available

        if not torch.cuda.is_available():
            raise UsageError(
                f"{self.name}: FlashAttention-2 needs a CUDA device, and torch sees none. Leave "
                f"{self.name} out; attention is torch's fused one then."
            )
        if not is_flash_attn_2_available():
            raise UsageError(
                f"{self.name}: FlashAttention-2 is not installed: "
                "pip install flash-attn --no-build-isolation"
            )
        return {"attn_implementation": "flash_attention_2"}

    def load_options(self, anatomy: Anatomy) -> dict[str, Any]:
        """As `16bit`: it takes no float32."""
        return {"dtype": "bfloat16", **self.run_options(anatomy)}

    def apply(self, model: nn.Module, anatomy: Anatomy) -> None:
        """Refuse a network that it cannot run: in its first forward pass it would only fail.

        Raises:
            UsageError: activations are float32, or not on CUDA.
        """
        import torch

        weight = next(model.parameters())
        if weight.device.type != "cuda" or weight.dtype is torch.float32:
            raise UsageError(
                f"{self.name}: FlashAttention-2 computes in half precision on CUDA, and the model "
                f"is {str(weight.dtype).removeprefix('torch.')} on {weight.device.type}. Chain it "
                "with a recipe that computes in bfloat16, and choose the device cuda."
            )

    def storage(self, component: Component) -> str:
        """Promise bfloat16, where nothing else says how weights are stored."""
        return "bfloat16"


@dataclass(frozen=True)
class Compiled:
    """The decoder through torch.compile, for all lengths at once.

    As a whole: layer by layer, each would be compiled anew for its own place in the cache.
    """

    name: str = "compile"

    def run_options(self, anatomy: Anatomy) -> dict[str, Any]:
        """Ask the loader for nothing, but see to it before it loads that this can work.

        Raises:
            UsageError: there is no C++ compiler, or no Python.h for it.
        """
        usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
        compiler = os.environ.get("CXX", usual)
        header = Path(sysconfig.get_path("include")) / "Python.h"
        missing = None if header.is_file() else str(header)
        if shutil.which(compiler) is None:
            missing = f"the C++ compiler {compiler!r}"
        if missing:
            raise UsageError(
                f"{self.name}: torch.compile needs {missing}, which is not there. Install g++ and "
                "python3-dev (apt-get install g++ python3-dev), or name a compiler in CXX."
            )
        return {}

    def load_options(self, anatomy: Anatomy) -> dict[str, Any]:
        """As `32bit`."""
        return {"dtype": "float32", **self.run_options(anatomy)}

    def apply(self, model: nn.Module, anatomy: Anatomy) -> None:
        """Have the decoder compiled when it is first called; modules and names stay."""
        from vlmbench.packed import Int4Linear

        decoder = model.get_submodule(anatomy.decoder)
        for module in decoder.modules():
            if isinstance(module, Int4Linear):
                module.pack()  # its first forward would, in a graph of its own for each layer
        decoder.compile(dynamic=True)

    def storage(self, component: Component) -> str:
        """Promise float32: nothing is compressed."""
        return "float32"


@dataclass(frozen=True)
class Offload:
    """Weights in memory up to a budget, the rest read from the checkpoint's files as they are used.

    The budget holds the weights at rest and the largest layer beside them, not activations. Runs
    on CPU, through accelerate.
    """

    name: str
    budget_bytes: int

    def run_options(self, anatomy: Anatomy) -> dict[str, Any]:
        """Fill the memory module by module, in order; buffers stay in memory."""
        return {
            "device_map": "sequential",
            "max_memory": {"cpu": self.budget_bytes},
        }

    def load_options(self, anatomy: Anatomy) -> dict[str, Any]:
        """As `32bit`."""
        return {"dtype": "float32", **self.run_options(anatomy)}

    def apply(self, model: nn.Module, anatomy: Anatomy) -> None:
        """Do nothing: the loader has done it."""

    def storage(self, component: Component) -> str:
        """Promise float32: nothing is compressed."""
        return "float32"


EAGER, FLASH, COMPILE = Eager(), Flash(), Compiled()
OFFLOAD = Offload("offload", 4 * 1024**3)
OFFLOAD_4MB = Offload("offload4mb", 4 * 10**6)
