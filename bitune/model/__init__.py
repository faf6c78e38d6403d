"""The method: prompt passes, mixing, answers on a mixed cache, `BituneModel`, attention maps.

From outside: `bitune_model.BituneModel` (as `bitune.BituneModel`), `decoding` for whoever reads, scores or generates with several
variants at once, `generation_config`, `identity` and `maps.attention_maps`. Caches do not leave this room.
"""
