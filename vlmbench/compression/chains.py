"""Chains that have a name of their own, or are wanted often enough to be in the catalogue.

Any other is made of what is here by its name: `A+B`, `A_ft`, `A_ft_on_docvqa`.
"""

from __future__ import annotations

from vlmbench.chain import Chain
from vlmbench.compression.bnb import INT8, NF4
from vlmbench.compression.depth import DEPTH25BI, DEPTH50, DEPTH50BI
from vlmbench.compression.finetune import FT, ON_DOCVQA, ON_SCIENCEQA, ON_VQAV2
from vlmbench.compression.lowrank import LOWRANK50, LOWRANK80
from vlmbench.compression.qat import QAT

DEPTH50_FT = Chain("depth50_ft", (DEPTH50, FT))
DEPTH50BI_FT = Chain("depth50bi_ft", (DEPTH50BI, FT))
DEPTH25BI_FT = Chain("depth25bi_ft", (DEPTH25BI, FT))
DEPTH50_FT_ON_DOCVQA = Chain("depth50_ft_on_docvqa", (DEPTH50, ON_DOCVQA))
DEPTH50_FT_ON_VQAV2 = Chain("depth50_ft_on_vqav2", (DEPTH50, ON_VQAV2))
DEPTH50_FT_ON_SCIENCEQA = Chain("depth50_ft_on_scienceqa", (DEPTH50, ON_SCIENCEQA))
DEPTH50_FT_NF4 = Chain("depth50_ft+4bit", (DEPTH50, FT, NF4))
LOWRANK80_FT = Chain("lowrank80_ft", (LOWRANK80, FT))
LOWRANK50_FT = Chain("lowrank50_ft", (LOWRANK50, FT))
LOWRANK80_FT_INT8 = Chain("lowrank80_ft+8bit", (LOWRANK80, FT, INT8))
LOWRANK80_FT_NF4 = Chain("lowrank80_ft+4bit", (LOWRANK80, FT, NF4))
QAT_NF4 = Chain("qat4bit", (QAT, NF4))
