"""Checkpoints that another tool has quantized are judged as they are, through its own loader."""

from pathlib import Path
from typing import Any, NamedTuple

import answered
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from vlmbench.catalogue import models
from vlmbench.compression.precision import BFLOAT16, STORED
from vlmbench.products import products
from vlmbench.spec import Source
from vlmbench.variant import load

WHY = "no compressed-tensors here: pip install compressed-tensors"
pytest.importorskip("compressed_tensors", reason=WHY)
QWEN2 = models()["qwen2"]
GROUP = 32


class Case(NamedTuple):
    """How decoder linears are quantized, and what the census finds of one of 128 x 128."""

    format: str
    weights: dict[str, Any]
    inputs: dict[str, Any] | None
    kind: str
    bits_per_weight: float


CASES = [
    # Codes, a bfloat16 scale for 32 of them, and the shape in two numbers of eight bytes.
    Case(
        "pack-quantized",
        {"num_bits": 4, "strategy": "group", "group_size": GROUP},
        None,
        "int4",
        4.0 + 16 / GROUP,
    ),
    Case(
        "int-quantized",
        {"num_bits": 8, "strategy": "channel"},
        {"num_bits": 8, "strategy": "token", "dynamic": True},
        "int8",
        8.0,
    ),
]


def rounded(weight: torch.Tensor, bits: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight to the nearest of symmetric codes, and the scales, one for `width` weights."""
    parts = weight.view(len(weight), -1, width)
    scales = parts.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    codes = (parts / scales).round()
    return (codes * scales).view_as(weight), scales.squeeze(-1)


def write(case: Case, folder: Path) -> dict[str, torch.Tensor]:
    """Quantize the embedded Qwen2-VL with the vendor's tool; the weights that are meant."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        QuantizationStatus,
        apply_quantization_config,
    )

    location = QWEN2.sources["embedded"].location
    network = AutoModelForImageTextToText.from_pretrained(location, dtype=torch.bfloat16)
    scheme = QuantizationScheme(
        targets=[r"re:model\.language_model\.layers.*proj$"],
        weights=QuantizationArgs(**case.weights),
        input_activations=case.inputs and QuantizationArgs(**case.inputs),
    )
    config = QuantizationConfig(
        config_groups={"decoder": scheme}, format=case.format, quantization_status="initialized"
    )
    apply_quantization_config(network, config)
    meant = {}
    for name, linear in network.named_modules():
        if hasattr(linear, "weight_scale"):
            width = case.weights.get("group_size", linear.in_features)
            told = rounded(linear.weight.data, case.weights["num_bits"], width)
            meant[f"{name}.weight"] = told[0]
            linear.weight_scale.data.copy_(told[1].view_as(linear.weight_scale))
            linear.quantization_status = QuantizationStatus.FROZEN
    compressor = ModelCompressor.from_pretrained_model(network)
    compressor.compress_model(network)
    network.save_pretrained(folder)
    compressor.update_config(folder)
    AutoProcessor.from_pretrained(location).save_pretrained(folder)
    return meant


@pytest.mark.parametrize("case", CASES, ids=[case.format for case in CASES])
def test_what_compressed_tensors_wrote_is_counted_and_answers(case, tmp_path):
    meant = write(case, tmp_path)
    variant = load(QWEN2, STORED, Source(str(tmp_path)))
    decoder = variant.census.components["decoder"]
    assert decoder.linears == {case.kind: len(meant)}
    assert case.bits_per_weight <= decoder.bits_per_weight < case.bits_per_weight + 0.2
    assert variant.census.components["vision"].linears.keys() == {"bfloat16"}
    inputs = answered.inputs(variant.model, variant.processor, 0)
    ids = variant.generate(inputs, max_new_tokens=8, min_new_tokens=8)
    # Its loader unpacks all of it when it is first called; that much is told.
    assert products(variant.network) == {"bfloat16": sum(counted(variant))}
    if case.inputs is None:  # else activations are rounded, too
        plain = load(QWEN2, BFLOAT16, QWEN2.sources["embedded"])
        for name, weight in meant.items():
            plain.network.get_parameter(name).data.copy_(weight)
        assert torch.equal(plain.generate(inputs, max_new_tokens=8, min_new_tokens=8), ids)


def counted(variant: Any) -> list[int]:
    return [n for held in variant.census.components.values() for n in held.linears.values()]
