"""A checkpoint and data so small that a whole inner run takes a second."""

import runpy
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
ROWS = 24
"""Of a dozen pictures: fewer could not tell a drop from chance."""


def checkpoint(folder):
    """A random Qwen2-VL, as tests/unit makes it, with a head that always says "No"."""
    import torch

    make = runpy.run_path(str(ROOT / "tests" / "unit" / "conftest.py"))
    processor = make["_processor"]()
    processor.save_pretrained(folder)
    network = make["_network"](processor.tokenizer)
    network.config.tie_word_embeddings = network.config.text_config.tie_word_embeddings = False
    # The hidden state is mostly the embedding of the last token: each calls for its successor.
    embedded = network.get_input_embeddings().weight.data
    network.lm_head.weight = torch.nn.Parameter(torch.zeros_like(embedded))
    for token, successor in pairwise(processor.tokenizer("\nNo<|im_end|>")["input_ids"]):
        network.lm_head.weight.data[successor] = embedded[token]
    network.save_pretrained(folder)
    return folder


def rows(folder, name, picture=None):
    """The first rows of a shipped data set that show a picture, in a folder.

    `picture`: the bytes that the third one shows instead.
    """
    table = pq.read_table(ROOT / "vlmbench" / "embedded" / "data" / name / "test.parquet")
    kept = [row for row in table.slice(0, 30).to_pylist() if row["image"]][:ROWS]
    if picture is not None:
        kept[2]["image"]["bytes"] = picture
    pq.write_table(pa.Table.from_pylist(kept, schema=table.schema), folder / "test.parquet")
    return folder
