"""Training: a BituneModel, token pairs and settings in; the model trained in place, its log and the figures out.

For use from outside: `settings.TrainingSettings` (no torch), and of `trainer` `train`, `training_facts`, of `state` `last_checkpoint`.
What is private of transformers' Trainer is overridden in `trainer.py` and `sampler.py` alone, and held by a contract test.
"""
