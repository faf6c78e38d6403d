"""The sweep over the families of transformers' causal language models: which are accepted, and whether they give what the library gives.

`python -m tests.families` writes docs/families.md; `pytest -m long tests/families` holds every row of it.
"""
