"""Sets of prompts: all of them answered by several variants, in a file that can be gone on with, and compared.

For use from outside: `rows`, `run.answer_set` and `run.planned`, `compared.compare`, `lines.comparison_lines`, all of `files`.
"""
