"""Evaluation: variants on questions, their accuracies with intervals and paired differences, as values, JSON or lines of text.

For use from outside: `run.evaluate`, `scores.score` and `scores.answer`, all of `report`, `intervals` and `lines`.
`acc_norm` is normalised per token here; lm-evaluation-harness's is per byte.
"""
