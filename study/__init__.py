"""The study: base, LoRA, Bitune and its ablations trained alike and measured alike. `python -m study run`, then `table`."""
