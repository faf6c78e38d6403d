"""Writes a small Llama as a GGUF file, as llama.cpp's converter would, so that reading one can be tested without a download."""

from pathlib import Path

import gguf
import torch
from transformers import LlamaForCausalLM


def write_gguf(path: Path, model: LlamaForCausalLM, vocabulary: list[str]) -> None:
    """`model` with a byte-level tokenizer of these tokens (single characters; the first is BOS, the second EOS), float32."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3, 3] + [1] * (len(vocabulary) - 2))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        stem, _, end = name.rpartition(".")
        if "q_proj" in name:
            weight = _interleave(weight, config.num_attention_heads)
        if "k_proj" in name:
            weight = _interleave(weight, config.num_key_value_heads)
        writer.add_tensor(f"{names.get_name(stem)}.{end}", weight.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _interleave(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """[heads * head_dim, hidden]: llama.cpp rotates neighbours where transformers rotates halves."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns).contiguous()
