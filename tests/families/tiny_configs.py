"""A tiny config for any family of transformers' causal language models, made from the family's own defaults."""

from dataclasses import fields
from itertools import cycle, islice

from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

FAMILIES = tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
LAYERS = 4
WINDOW = 6
INITIALIZER_RANGE = 0.1
HEADS = 4
# What families call their sizes, by the small one they get where their own is a number above it; 0 and None stay what they are.
_NAMES = {
    260: "vocab_size vocab_size_per_layer_input unpadded_vocab_size decoder_vocab_size",
    32: (
        "hidden_size n_embd d_model emb_dim embedding_dim embedding_size word_embed_proj_dim backbone_hidden_size "
        "input_embedding_size output_embedding_size attention_hidden_size"
    ),
    48: (
        "intermediate_size ffn_dim ffn_hidden_size decoder_ffn_dim encoder_ffn_dim dim_ff dff intermediate_size_mlp "
        "feed_forward_size d_inner dense_intermediate_size n_inner"
    ),
    24: (
        "moe_intermediate_size expert_ffn_hidden_size shared_expert_intermediate_size shared_experts_intermediate_size "
        "moe_shared_expert_intermediate_size shared_intermediate_size"
    ),
    16: "kv_lora_rank q_lora_rank hidden_size_per_layer_input",
    12: "v_head_dim",
    8: (
        "head_dim d_head dim_head attention_head_size qk_rope_head_dim qk_nope_head_dim index_head_dim kv_channels "
        "swa_head_dim linear_key_head_dim linear_value_head_dim linear_head_dim global_head_dim"
    ),
    512: "max_position_embeddings n_positions max_seq_len n_ctx context_length model_max_length",
    2: "num_experts_per_tok num_experts_per_token moe_topk moe_k",
    1: "n_group topk_group num_expert_group first_k_dense_replace num_dense_layers num_mem_blocks",
    WINDOW: "sliding_window local_attention sliding_window_size attention_window_size window_size attention_chunk_size",
    4: (
        "num_hidden_layers n_layer n_layers num_layers decoder_layers num_decoder_layers encoder_layers "
        "num_encoder_layers num_attention_heads n_head n_heads num_heads attention_heads decoder_attention_heads "
        "encoder_attention_heads num_encoder_attention_heads num_decoder_attention_heads num_experts n_routed_experts "
        "num_local_experts moe_num_experts linear_num_key_heads linear_num_value_heads linear_num_heads index_n_heads "
        "rotary_dim index_topk"
    ),
}
_SIZES = {name: size for size, names in _NAMES.items() for name in names.split()}
NOT_TINY = {
    "gemma3n": "a part of it needs the library timm",
    "gemma4_assistant": "it drafts for another model, and its default config is invalid",
    "musicgen": "transformers does not build it from its config alone",
    "musicgen_melody": "transformers does not build it from its config alone",
}
"""What cannot be built here, and why."""
# What the rules above do not get right: sizes that depend on one another, and what the family's defaults leave out.
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8}
_MIXED = ["sliding_attention", "full_attention"] * 2
_INDEXER = {
    "indexer_n_heads": 4,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 8,
    "indexer_compress_ratio": 4,
}
_OVERRIDES: dict[str, dict[str, object]] = {
    "bamba": _MAMBA,
    "blenderbot": {"encoder_layers": LAYERS},
    "blt": {"encoder_hash_byte_group_vocab": 100},
    "cohere_compass_text": {
        "layer_types": _MIXED,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]} for kind in _MIXED
        },
    },
    "dbrx": {"attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10_000.0}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "deepseek_v4": {"o_groups": 2, "o_lora_rank": 8},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dory": {"n_input_layers": 1, "n_recurrent_layers": 2, "n_output_layers": 1},
    "dots3_note": {
        "vision_config": {"num_hidden_layers": 42, "adapter_in_dim": 32, "adapter_out_dim": 32},
        "audio_config": {"adapter_input_size": 32, "adapter_output_size": 32},
    },
    "gemma3n_text": {"num_kv_shared_layers": 2},
    "granitemoehybrid": _MAMBA,
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp": {"text_config": _INDEXER},
    "qwen4_exp_text": _INDEXER,
    "reformer": {"axial_pos_shape": (16, 32), "axial_pos_embds_dim": (16, 16), "num_buckets": 4},
    "xlm": {"causal": True},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"attn_layer_offset": 0},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * 2},
}


def tiny_config(family: str) -> PreTrainedConfig:
    """A config of `family` with its own kinds of layers, heads and options, and tiny sizes."""
    return _shrunk(CONFIG_MAPPING[family], _OVERRIDES.get(family, {}))


def _shrunk(kind: type[PreTrainedConfig], overrides: dict[str, object]) -> PreTrainedConfig:
    own = kind()
    values = vars(own)
    settings: dict[str, object] = {}
    for name in (field.name for field in fields(kind)):
        value = values.get(name)
        if isinstance(value, PreTrainedConfig):
            settings[name] = _shrunk(type(value), overrides.get(name, {}))
        elif isinstance(value, int) and not isinstance(value, bool) and value > _SIZES.get(name, value):
            settings[name] = _SIZES[name]
        elif name in ("num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads") and value:
            settings[name] = HEADS if value == values.get("num_attention_heads") else HEADS // 2
        elif name == "head_dim":
            settings[name] = _SIZES[name]
        elif name == "is_decoder":
            settings[name] = True  # families that began as encoders
        elif name in ("initializer_range", "init_std"):
            settings[name] = INITIALIZER_RANGE
        elif name == "layer_types" and value and len(set(value)) > 1:
            settings[name] = list(islice(cycle(dict.fromkeys(value)), LAYERS))
    nested = {name for name, value in settings.items() if isinstance(value, PreTrainedConfig)}
    settings |= {name: value for name, value in overrides.items() if name not in nested}
    special = {"bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 258}
    return kind(**settings | {name: special[name] for name in special if name in values})
