"""Checkpoint folders on disk and on the Hub: ours, plain PEFT adapters, and those of the authors' research code.

From outside use `folder` (read, write, check_target, resolve_checkpoint and the values they take), `reference.read_reference` and
`publish.publish`; knows files, not models.
"""
