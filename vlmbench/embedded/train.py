"""Train an embedded checkpoint, stage by stage, and save it into the package."""

from __future__ import annotations

from pathlib import Path

from vlmbench.embedded.asking import Blip2
from vlmbench.embedded.cropping import Phi35
from vlmbench.embedded.first import First
from vlmbench.embedded.gathering import Idefics2
from vlmbench.embedded.heir import LlavaNext, VideoLlava
from vlmbench.embedded.matching import Matching
from vlmbench.embedded.school import School

SCHOOLS: dict[str, type[School]] = {
    "qwen2": First,
    "llavanext": LlavaNext,
    "video_llava": VideoLlava,
    "phi3_5": Phi35,
    "idefics2": Idefics2,
    "blip2": Blip2,
    "clip": Matching,
}
"""How each checkpoint is trained; each begins with what those before it know."""


def run(name: str, work: Path) -> None:
    """Train checkpoint `name`, keeping states under `work`, and write it into the package."""
    school = SCHOOLS[name](name, work)
    school.run()
    school.finish()
