"""Speed: every recipe beside the same model uncompressed, as `python -m vlmbench.speed`."""
