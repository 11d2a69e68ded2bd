"""A model under a compression, loaded: the only place that calls `from_pretrained`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmbench import architectures, promises
from vlmbench.census import Census, check_dtype, take, verify
from vlmbench.checkpoint import (
    check_architecture,
    check_tokenizer,
    check_weights,
    config_of,
    explained,
    explained_loader,
    first_line,
    is_folder,
    where,
)
from vlmbench.errors import CheckpointError, NumericsError, UsageError
from vlmbench.finite import explain, watched
from vlmbench.offloading import placement
from vlmbench.patches import as_products
from vlmbench.saving import file_bytes
from vlmbench.shipped import check_census, check_files, is_stored
from vlmbench.spec import Compression, Model, Source

if TYPE_CHECKING:
    from torch import Tensor

QUANTIZED = "quantization_config"
"""The option by which a recipe has its loader quantize."""

# Known log lines that ask nothing of the user, and where they come from. Any other still shows.
_HARMLESS = {
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",  # optional speed-up
    "bitsandbytes.autograd._functions": "inputs will be cast from",  # LLM.int8, at every product
    "transformers.modeling_utils": "LOAD REPORT",  # becomes a CheckpointError
    "accelerate.big_modeling": "Some parameters are on the meta device",  # as was asked for
    # Some architectures read pictures in one way only.
    "transformers.models.auto.image_processing_auto": "backend is not available",
}

# Of a generation config: what does not say how tokens are chosen, and what says greedily.
_NO_CHOICE = ("_", "bos_", "eos_", "pad_", "output_", "use_cache", "transformers_version")
_GREEDY = (("do_sample", False), ("num_beams", 1))


@dataclass(frozen=True)
class Variant:
    """A loaded model with its processor, and the proof of how it is stored."""

    model: Model
    compression: Compression
    source: Source
    network: Any
    """The transformers model, in evaluation mode, set to greedy generation."""
    processor: Any
    census: Census
    file_bytes: int
    """Bytes of the tensors that `save_pretrained` writes."""
    device: str
    dtype: str | None = None
    """Of what the recipe leaves unquantized, where the user said so."""
    time_limit_s: float | None = None
    """A batch that is not answered by then is left as it is."""
    made_s: float = 0.0
    """Seconds that recipes took to make the checkpoint, in this session or an earlier one."""

    @property
    def name(self) -> str:
        """As in test ids: `qwen2_4bit`."""
        return f"{self.model.name}_{self.compression.name}"

    @property
    def decoding(self) -> str:
        """How answers are made: `greedy`, with what the generation config adds, or `chosen`."""
        if not self.network.can_generate():
            return "chosen"
        added = {
            name: value
            for name, value in self.network.generation_config.to_diff_dict().items()
            if not name.startswith(_NO_CHOICE) and (name, value) not in _GREEDY
        }
        return ", ".join(["greedy", *(f"{name} {value}" for name, value in sorted(added.items()))])

    def generate(
        self, inputs: Mapping[str, Any], *, max_new_tokens: int, min_new_tokens: int = 0
    ) -> Tensor:
        """Answer greedily: model inputs of a batch -> new token ids [batch, new tokens].

        Rows that end sooner are padded; all end together where the time is up.

        Raises:
            NonFinite: the logits of some rows are NaN or infinite.
        """
        import torch

        moved = self._moved(inputs)
        (named,) = self.model.anatomy.modules("head")
        head = self.network.get_submodule(named)
        with torch.inference_mode(), quiet(), watched(head):
            ids: Tensor = self.network.generate(
                **moved,
                max_new_tokens=max_new_tokens,
                min_new_tokens=min_new_tokens or None,
                max_time=self.time_limit_s,
            )
        return ids[:, moved["input_ids"].shape[1] :]

    def explain(self, inputs: Mapping[str, Any]) -> NumericsError:
        """The module in which these inputs first become something that is no number."""
        import torch

        with torch.inference_mode(), quiet():
            return explain(self.network, self._moved(inputs))

    def _moved(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        import torch

        return {
            name: value.to(self.device) if torch.is_tensor(value) else value
            for name, value in inputs.items()
        }


def load(
    model: Model,
    compression: Compression,
    source: Source,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    kept: Path | None = None,
    loaded: Callable[[Any], object] = lambda network: None,
) -> Variant:
    """Load `model` from `source` under `compression`; `dtype` is that of unquantized weights.

    `kept`: a folder that holds the network as the recipe has once made or quantized it.
    `loaded` is given the network as the loader made it, before the recipe changes it in place.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, or of another architecture.
        CensusError: the loaded network is not stored as the recipe promises, or as it was shipped.
        UsageError: `dtype` contradicts the recipe, or there is no such device.
    """
    check_dtype(compression, dtype)
    check_device(device)
    shipped = check_files(source)
    check_architecture(model, source)
    import torch

    # A recipe that draws at random draws the same each time: a resumed run is of one network.
    with torch.random.fork_rng(), quiet(bars=not is_folder(source)):
        torch.manual_seed(0)
        network = _network(model, compression, source, device=device, dtype=dtype, kept=kept)
        loaded(network)
        if getattr(network, "is_loaded_in_4bit", False):
            from vlmbench.nf4 import take_any_shape

            take_any_shape(network)
        processor = _processor(source, model.template)
        compression.apply(network, model.anatomy)
    taken = take(network, model.anatomy)
    verify(taken, compression, dtype=dtype)
    promises.check(network, compression, model.anatomy)
    if shipped and is_stored(compression):
        check_census(taken, shipped, source)
    _make_greedy(network, processor)
    as_products(network)
    held = file_bytes(network)
    return Variant(model, compression, source, network, processor, taken, held, device, dtype)


def _network(
    model: Model,
    compression: Compression,
    source: Source,
    *,
    device: str,
    dtype: str | None,
    kept: Path | None,
) -> Any:
    import transformers

    from vlmbench import layers

    cls = architectures.find(model.architecture)
    if cls is None:
        raise CheckpointError(
            f"model {model.name!r} names architecture {model.architecture!r}, which neither "
            f"transformers {transformers.__version__} nor vlmbench.architectures has. Correct the "
            "adapter."
        )
    options = compression.load_options(model.anatomy)
    if dtype is not None:
        options["dtype"] = dtype
    if kept is not None:
        source = Source(str(kept))
    told = config_of(source)
    options |= placement(options, device, quantized=QUANTIZED in {*options, *told})
    if QUANTIZED in told:
        options.pop(QUANTIZED, None)  # it stands in the configuration
    if layers.FIELD in told:
        cls = layers.shaped(cls)
    with explained(source, "weights"), explained_loader(source, told.get(QUANTIZED)):
        network, info = cls.from_pretrained(
            **where(source),
            **options,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # refused below, with the names
            output_loading_info=True,
        )
    check_weights(network, source, info)
    return network.eval()


def _processor(source: Source, template: str | None) -> Any:
    from transformers import AutoProcessor, ProcessorMixin

    with explained(source, "processor"):
        # transformers is typed in part only, here and below.
        processor = AutoProcessor.from_pretrained(**where(source))  # type: ignore[no-untyped-call]
    if not isinstance(processor, ProcessorMixin):
        raise CheckpointError(
            f"{source.location} has no processor configuration: expected processor_config.json or "
            f"preprocessor_config.json, found only a {type(processor).__name__}. Save the "
            "processor beside the weights: processor.save_pretrained(folder)."
        )
    check_tokenizer(processor.tokenizer, source)
    own = processor.chat_template or getattr(processor.tokenizer, "chat_template", None)
    processor.chat_template = own or template
    videos: Any = getattr(processor, "video_processor", None)
    if getattr(videos, "cap_pixels_per_frame", True) is None:
        videos.cap_pixels_per_frame = True  # as the model's authors do; unset, each call warns
    return processor


def _make_greedy(network: Any, processor: Any) -> None:
    """Say so outright: some checkpoints ship a generation config that samples."""
    if not network.can_generate():
        return
    config = network.generation_config
    config.do_sample, config.num_beams = False, 1
    config.temperature = config.top_p = config.top_k = None  # else each call warns of them
    if config.pad_token_id is None:
        config.pad_token_id = processor.tokenizer.pad_token_id
    # BLIP-2 has its decoder generate, which is a generator of its own.
    decoder: Any = getattr(network, "language_model", None)
    if hasattr(decoder, "generate"):
        decoder.generation_config = config


def check_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        UsageError: with torch's reason.
    """
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"device {device!r} cannot be used here: {first_line(error)}. Expected 'cpu', or "
            "'cuda' on a machine with a GPU that torch can see."
        ) from None


@contextmanager
def quiet(*, bars: bool = False) -> Iterator[None]:
    """Drop the harmless lines, and progress bars unless `bars`, until the block ends."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    drops = [
        (logging.getLogger(name), lambda record, text=text: text not in record.getMessage())
        for name, text in _HARMLESS.items()
    ]
    for logger, drop in drops:
        logger.addFilter(drop)
    if shown and not bars:
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            # A weight that belongs to no layer is a key of its own.
            warnings.filterwarnings("ignore", "The following device_map keys do not match")
            yield
    finally:
        for logger, drop in drops:
            logger.removeFilter(drop)
        if shown and not bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
