"""Sets of prompts: all of them answered by several variants, in a file that can be gone on with, and compared.

For use from outside: all of `rows`, `run`, `compared`, `files` and `lines` that has no underscore.
"""
