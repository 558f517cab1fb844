"""A loaded base: one object for the models, tokenizers and schedules that a family of diffusion models consists of.

`interface.py` says what a base can do, `sd.py` is Stable Diffusion 1.x and 2.x; a new family is one file beside it.
"""
