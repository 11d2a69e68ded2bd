"""What can be said of a checkpoint without loading it, and what its loading may not hide."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmbench.errors import CheckpointError
from vlmbench.files import content_of
from vlmbench.spec import Model, Source

if TYPE_CHECKING:
    from torch import nn

_DIGESTED = {
    "weights": ("*.safetensors",),
    "configuration": ("*.json", "*.jinja", "*.txt", "*.model"),
}
# Beside transformers; of other methods its own message tells.
_LOADERS = {
    "gptq": "optimum gptqmodel",
    "awq": "gptqmodel",
    "compressed-tensors": "compressed-tensors",
}
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NO_CODE = {"trust_remote_code": False}
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def checkpoint_digests(source: Source) -> dict[str, str]:
    """What `source` holds, by part: sha256 of a folder's files, or the commit of a hub checkpoint.

    Raises:
        CheckpointError: there is no such checkpoint.
    """
    if not is_folder(source):
        return dict.fromkeys(_DIGESTED, _commit(source))
    folder, digests = _folder(source), {}
    for part, patterns in _DIGESTED.items():
        digest = hashlib.sha256()
        for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
            with explained(source, path.name):
                content = content_of(path)
            digest.update(f"{path.name} {content}\n".encode())
        digests[part] = digest.hexdigest()[:32]
    return digests


def _commit(source: Source) -> str:
    if source.revision and _COMMIT.fullmatch(source.revision):
        return source.revision
    from huggingface_hub import hf_hub_download

    with explained(source, "config.json"):
        path = hf_hub_download(source.location, "config.json", revision=source.revision)
    return Path(path).parent.name  # .../snapshots/<commit>/config.json, also when offline


def check_architecture(model: Model, source: Source) -> None:
    """Read no more than the config: transformers would load one class's weights into another.

    Raises:
        CheckpointError: the config is missing, damaged, or of another architecture.
    """
    named = config_of(source).get("architectures") or ["none"]
    if model.architecture not in named:
        raise CheckpointError(
            f"{source.location}/config.json is of architecture {', '.join(named)}, but model "
            f"{model.name!r} expects {model.architecture}. Name another checkpoint, or the model "
            "that goes with this one."
        )


def config_of(source: Source) -> dict[str, Any]:
    """What config.json says.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    from transformers import PreTrainedConfig

    if is_folder(source):
        _folder(source)
    with explained(source, "config.json"):
        config: dict[str, Any] = PreTrainedConfig.get_config_dict(**where(source))[0]
    return config


def check_weights(network: nn.Module, source: Source, info: Mapping[str, Any]) -> None:
    """Refuse what transformers would patch with random weights or drop in silence.

    Args:
        network: the loaded network.
        source: where its weights came from.
        info: what `from_pretrained(output_loading_info=True)` gave; tied weights are not missing.

    Raises:
        CheckpointError: a key is missing, unexpected, or of another shape.
    """
    faults = {
        "missing": sorted(info["missing_keys"]),
        "unexpected": sorted(info["unexpected_keys"]),
        "of another shape": [
            f"{key} (found {list(found)}, expected {list(expected)})"
            for key, found, expected in sorted(info["mismatched_keys"])
        ]
        + _misshapen(network),
    }
    lines = [f"{len(keys)} {fault}: {_first_few(keys)}" for fault, keys in faults.items() if keys]
    if lines:
        raise CheckpointError(
            f"the weights in {source.location} do not fit {type(network).__name__} as config.json "
            "describes it (expected each key once, in shape):\n  " + "\n  ".join(lines) + "\n"
            "Save the checkpoint again from the network that its config.json describes."
        )


def _misshapen(network: nn.Module) -> list[str]:
    """Find what transformers does not see: it quantizes a weight of any shape."""
    from torch import nn

    from vlmbench.packed import Int4Linear, Int8Linear, Sparse24Linear

    found = []
    for name, linear in network.named_modules():
        # Other libraries may call a packed weight otherwise, and see to its shape themselves.
        if isinstance(linear, nn.Linear) and hasattr(linear, "weight"):
            stored = getattr(linear.weight, "quant_state", linear.weight).shape
            declared = [linear.out_features, linear.in_features]
            halved = isinstance(linear, Int4Linear | Sparse24Linear)
            if halved or (isinstance(linear, Int8Linear) and linear.bits == 4):
                declared[1] //= 2  # two codes a byte, or two weights of four
            if list(stored) != declared:
                found.append(f"{name}.weight (found {list(stored)}, expected {declared})")
    return found


def check_tokenizer(tokenizer: Any, source: Source) -> None:
    """Refuse a folder without a vocabulary, for which transformers makes up an empty one.

    Raises:
        CheckpointError: none of the tokenizer's files is in the folder.
    """
    names = sorted(tokenizer.vocab_files_names.values())
    if is_folder(source) and not any((_folder(source) / name).is_file() for name in names):
        raise CheckpointError(
            f"{source.location} has no vocabulary: expected one of {', '.join(names)}. Save the "
            "processor beside the weights: processor.save_pretrained(folder)."
        )


def _first_few(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _folder(source: Source) -> Path:
    folder = Path(source.location).expanduser()
    if not folder.is_dir():
        raise CheckpointError(
            f"no checkpoint at {folder}: expected a folder as save_pretrained writes it. Correct "
            "the path, or fetch the checkpoint."
        )
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder} is no checkpoint: expected config.json in it, found "
            f"{', '.join(sorted(p.name for p in folder.iterdir())[:5]) or 'nothing'}. Name the "
            "folder that save_pretrained wrote."
        )
    return folder


def is_folder(source: Source) -> bool:
    """Whether the location is meant as a folder: it is there, or cannot be a hub id."""
    return Path(source.location).expanduser().exists() or not _HUB_ID.fullmatch(source.location)


def where(source: Source) -> dict[str, Any]:
    """Tell every `from_pretrained` the address, and never to run remote code."""
    if is_folder(source):
        location = str(Path(source.location).expanduser())
        return {"pretrained_model_name_or_path": location, "local_files_only": True} | _NO_CODE
    return {
        "pretrained_model_name_or_path": source.location,
        "revision": source.revision,
    } | _NO_CODE


@contextmanager
def explained(source: Source, what: str) -> Iterator[None]:
    """Turn the loader's many exceptions into one that says what to do."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        StrictDataclassError,
    )
    from safetensors import SafetensorError

    try:
        yield
    except (
        OSError,
        json.JSONDecodeError,
        SafetensorError,
        StrictDataclassError,
        HfHubHTTPError,
        HFValidationError,
    ) as error:
        if is_folder(source):
            todo = "The folder is incomplete or damaged: copy or save the checkpoint again."
        else:
            todo = (
                "Check the id and revision, go online once so that it is cached, or give the path "
                "of a local folder (there is none of that name here)."
            )
        at = f" at revision {source.revision}" if source.revision else ""
        raise CheckpointError(
            f"cannot read the {what} of {source.location}{at}: {first_line(error)}. {todo}"
        ) from None


@contextmanager
def explained_loader(source: Source, quantized: Mapping[str, Any] | None) -> Iterator[None]:
    """Say which package reads a checkpoint that its vendor quantized, where it is not there."""
    try:
        yield
    except ImportError as error:
        if not quantized:
            raise
        method = quantized.get("quant_method")
        todo = f": pip install {_LOADERS[method]}" if method in _LOADERS else " that it names"
        raise CheckpointError(
            f"{source.location} is quantized by {method}, which needs a package that is not here "
            f"({first_line(error)}). Install it{todo}"
        ) from None


def first_line(error: BaseException) -> str:
    """Keep the part of a library's message that says what happened."""
    lines = str(error).strip().split("\n")
    introduced = lines[0].endswith(":") and len(lines) > 1
    said = f"{lines[0]} {lines[1].strip()}" if introduced else lines[0]
    return said.rstrip(".") or type(error).__name__
