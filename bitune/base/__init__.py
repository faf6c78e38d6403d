"""Base models: find the weights, download them, load them as a frozen model with its tokenizer; knows no adapter.

From outside use `loading` (load_base, Base), `fingerprint` (fingerprint, same_weights) and `default.EMBEDDED`; the other modules
serve these.
"""
