"""What seeking is worth: eight frames of a quarter of an hour, against decoding every frame."""

import av
import pytest
from small_films import repeated

from vlmbench import video
from vlmbench.spec import Clip

TIMES = 225


@pytest.fixture(scope="module")
def long_film(tmp_path_factory):
    """A film of 15 minutes: four seconds with key frames, their packets repeated."""
    import numpy as np

    folder = tmp_path_factory.mktemp("long")
    short, path = folder / "short.mp4", folder / "long.mp4"
    with av.open(str(short), "w") as target:
        stream = target.add_stream("libx264", rate=25, options={"g": "50"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for i in range(100):
            pixels = np.full((360, 640, 3), 40, np.uint8)
            pixels[100:200, 4 * i : 4 * i + 100] = (250, 2 * i, 0)
            target.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        target.mux(stream.encode(None))
    return repeated(short, path, TIMES)


def every_frame(path):
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def chosen_frames(path):
    return video.read(Clip(path)).total


@pytest.mark.parametrize("way", [every_frame, chosen_frames])
def test_decoding(benchmark, long_film, way):
    benchmark.group = "video decoding"
    assert benchmark.pedantic(way, (long_film,), rounds=3) == 100 * TIMES
