"""Checkpoint folders on disk and on the Hub: ours, plain PEFT adapters, and those of the authors' research code.

From outside use `folder` (read, write, resolve_checkpoint and the values they take), `places` and `older` (checks that
need no torch), `reference.read_reference` and `publish.publish`; knows files, not models.
"""
