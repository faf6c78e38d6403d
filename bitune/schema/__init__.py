"""Plain values that all rooms share: what a variant is, what a checkpoint says about itself, what a request returns.

They know no torch, no file and no model, so that they can cross a process border. Every name without an underscore may be used.
"""
