"""A pytest suite that catches what compression ruins in vision-language models."""
