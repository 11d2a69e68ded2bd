"""Linears whose weights are really small, for recipes to put in place of the float ones."""

from vlmbench.packed_codes import GROUP, group_size, quantized, rounded
from vlmbench.packed_int4 import Int4Linear
from vlmbench.packed_int8 import Int8Linear
from vlmbench.packed_sparse import Sparse24Linear

__all__ = [
    "GROUP",
    "Int4Linear",
    "Int8Linear",
    "Sparse24Linear",
    "group_size",
    "quantized",
    "rounded",
]
