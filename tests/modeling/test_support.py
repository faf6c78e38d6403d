"""Which models can run Bitune: many families give the same numbers as transformers, others are refused with the reason."""

import copy
import sys

import pytest
import torch
import transformers as t
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, DynamicCache, PreTrainedConfig, PreTrainedModel

from bitune import BituneModel, MixingRatios, UnsupportedModelError
from bitune.adapters.kinds import linear_layers, new_peft_config
from bitune.adapters.manager import AdapterManager
from bitune.data.batches import pad_left
from bitune.errors import ConfigError
from bitune.model.prefill import Row, prefill
from bitune.modeling.interface import cache_input, position_input, vocabulary_size
from bitune.modeling.masks import pass_masks
from bitune.modeling.support import check_supported
from bitune.schema.variants import BASE
from tests.closeness import assert_apart, assert_close
from tests.greedy import greedy
from tests.tiny import FAMILIES, GROUPED, SHAPE, WINDOW, bitune_on, ids, randomized, tiny_model
from tests.unharmed import refused

GREEDY = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 258}
SPECIAL = {key: SHAPE[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id", "initializer_range")}
GPT2 = SPECIAL | {"vocab_size": 260, "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 512}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
# Key and value heads differ in size, and keys are partly rotated.
LATENT = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12}
MIXED = ["sliding_attention", "full_attention"] * 2

CONFIGS = {
    "gpt2": lambda: t.GPT2Config(**GPT2, **NO_DROPOUT),
    "gpt_bigcode": lambda: t.GPTBigCodeConfig(**GPT2, **NO_DROPOUT, multi_query=True),
    "gptj": lambda: t.GPTJConfig(**GPT2, **NO_DROPOUT, rotary_dim=4),
    "opt": lambda: t.OPTConfig(**SHAPE, ffn_dim=48, word_embed_proj_dim=32, init_std=0.3),
    "falcon": lambda: t.FalconConfig(**SHAPE, num_kv_heads=2, new_decoder_architecture=True),
    "mpt": lambda: t.MptConfig(**SPECIAL, vocab_size=260, d_model=32, n_heads=4, n_layers=4, max_seq_len=512, use_cache=True),
    "qwen2": lambda: t.Qwen2Config(**GROUPED),
    "qwen2_windows": lambda: t.Qwen2Config(**GROUPED, use_sliding_window=True, sliding_window=WINDOW, layer_types=MIXED),
    "gemma2": lambda: t.Gemma2Config(**GROUPED, head_dim=8, sliding_window=WINDOW, layer_types=MIXED),
    "phi3": lambda: t.Phi3Config(**GROUPED, sliding_window=WINDOW),
    "starcoder2": lambda: t.Starcoder2Config(**GROUPED, sliding_window=WINDOW),
    "cohere": lambda: t.CohereConfig(**GROUPED),
    "cohere2": lambda: t.Cohere2Config(**GROUPED, sliding_window=WINDOW, layer_types=MIXED),
    "stablelm": lambda: t.StableLmConfig(**GROUPED),
    "granite": lambda: t.GraniteConfig(**GROUPED),
    "smollm3": lambda: t.SmolLM3Config(**GROUPED, no_rope_layers=[1, 1, 1, 0]),
    "olmo3": lambda: t.Olmo3Config(**GROUPED, sliding_window=WINDOW, layer_types=MIXED),
    "mixtral": lambda: t.MixtralConfig(**GROUPED, num_local_experts=4),
    "qwen3_moe": lambda: t.Qwen3MoeConfig(**GROUPED, **EXPERTS, head_dim=8, num_experts=4),
    "gpt_oss": lambda: t.GptOssConfig(**GROUPED, head_dim=8, num_local_experts=4, sliding_window=WINDOW, layer_types=MIXED),
    "deepseek_v3": lambda: t.DeepseekV3Config(
        **SHAPE, **EXPERTS, **LATENT, num_key_value_heads=4, n_routed_experts=4, n_group=1, topk_group=1, first_k_dense_replace=1
    ),
}
EXPERT_FAMILIES = {"mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3"}


def built(config: PreTrainedConfig, attention: str | None = None, kind=AutoModelForCausalLM) -> PreTrainedModel:
    torch.manual_seed(0)
    return kind.from_config(config, attn_implementation=attention).eval()


def stacked(cache) -> torch.Tensor:
    return torch.cat([part.flatten(1) for layer in cache.layers for part in (layer.keys, layer.values)], dim=1)


@torch.no_grad()
def cache_of(manager: AdapterManager, prompt, rows):
    return prefill(manager, prompt, torch.ones_like(prompt), rows)


@pytest.mark.parametrize("family", CONFIGS)
def test_the_base_reads_and_generates_as_plain_transformers(family):
    model = built(CONFIGS[family]())
    manager = AdapterManager.of(model)
    for prompt in ids(1, 2, 14):
        cache, mask = cache_of(manager, prompt, [Row(0, BASE.passes)]), torch.ones_like(prompt)
        own = DynamicCache(config=model.config)
        if prompt.shape[1] > 1:
            with torch.no_grad():
                model(prompt[:, :-1], **cache_input(own))
            assert_close(stacked(cache), stacked(own))
        ours = greedy(model, prompt, attention_mask=mask, **{**GREEDY, **cache_input(cache)})
        assert torch.equal(ours, model.generate(prompt, attention_mask=mask, **GREEDY)), prompt.shape


@pytest.mark.parametrize("kind", ["lora", "ia3"])
@pytest.mark.parametrize("family", CONFIGS)
def test_batches_give_what_single_prompts_and_single_adapters_give(family, kind, monkeypatch):
    model = bitune_on(built(CONFIGS[family]()), kind=kind)
    prompts, answers = ids(1, 2, 13), ids(3, 3, 3, seed=5)
    batch, mask = pad_left([p[0].tolist() for p in prompts], 258)
    with torch.no_grad():
        together = model(batch, torch.cat(answers), mask).logits
        tokens = greedy(model, batch, mask, **GREEDY)
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            assert_close(together[row : row + 1], model(prompt, answer).logits)
            assert torch.equal(tokens[row, -4:], model.generate(prompt, **GREEDY)[0, -4:]), row
        assert model.manager.can_mix(list(model.names.values())) == (family not in EXPERT_FAMILIES)
        asked = []
        monkeypatch.setattr(AdapterManager, "can_mix", lambda self, adapters: asked.append(adapters))
        assert_close(model(batch, torch.cat(answers), mask).logits, together)
        assert asked, "nobody asked can_mix, so both logits were computed in the same way"


@pytest.mark.parametrize("family", sorted(CONFIGS.keys() - {"mpt"}))
def test_the_passes_see_what_they_should(family):
    """Eager attention weights of each pass: zero where nothing may be seen, above zero where it may."""
    model = built(CONFIGS[family](), "eager")
    layout = AdapterManager.of(model).layout
    (prompt,) = ids(11)
    ones, index = torch.ones_like(prompt), torch.arange(11)
    distance = index[:, None] - index[None]
    types = getattr(model.config, "layer_types", None) or ["all"] * 4
    for attention, seen in (("causal", distance >= 0), ("anticausal", distance <= 0), ("bidirectional", distance == distance)):
        masks = pass_masks(layout, [attention], ones, "eager", model.dtype)
        with torch.no_grad():
            maps = model(
                prompt, attention_mask=masks, output_attentions=True, **position_input(model, ones, ones.shape[1])
            ).attentions
        for layer, weights in enumerate(maps):
            window = layout.windows[types[layer]]
            expected = seen if window is None else seen & (distance.abs() < window)
            assert torch.equal(weights[0, :, :, :11] > 0, expected.expand(4, -1, -1)), (attention, layer)
    windows = {window for window in layout.windows.values() if window}
    assert windows == ({WINDOW} if getattr(model.config, "sliding_window", None) else set())


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "deepseek_v3"])
def test_limits_of_mixing_are_the_single_passes(family):
    model = bitune_on(built(CONFIGS[family]()))
    (prompt,) = ids(13)
    limits = [model.variant.with_mixing(MixingRatios.constant(4, alpha)) for alpha in (0.0, 1.0)]
    rows = [*(Row.of(variant, 0) for variant in limits), *(Row(0, (reading,)) for reading in model.variant.passes)]
    cache = stacked(cache_of(model.manager, prompt, rows))
    assert torch.equal(cache[0], cache[2]) and torch.equal(cache[1], cache[3])
    assert_apart(cache[2], cache[3])


def test_a_model_of_pictures_too_is_adapted_and_read_as_text_only():
    text = t.Gemma3TextConfig(**GROUPED, head_dim=8, sliding_window=WINDOW, layer_types=MIXED)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    pictures = {"boi_token_index": 251, "eoi_token_index": 252, "image_token_index": 253, "mm_tokens_per_image": 4}
    model = built(t.Gemma3Config(text_config=text, vision_config=vision | {"image_size": 16, "patch_size": 8}, **pictures))
    bitune = bitune_on(model)
    adapted = [path for path, _ in bitune.named_parameters() if "lora_A" in path]
    assert len(adapted) == 2 * 4 * 7 and not any("vision" in path for path in adapted)
    prompts, answers = ids(3, 12), ids(3, 3, seed=5)
    batch, mask = pad_left([p[0].tolist() for p in prompts], 258)
    with torch.no_grad():
        together = bitune(batch, torch.cat(answers), mask).logits
        for row in range(2):
            assert_close(together[row : row + 1], bitune(prompts[row], answers[row]).logits)


MAMBA = {"vocab_size": 260, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "pad_token_id": 0}
ENCODER = {"vocab_size": 260, "d_model": 32, "num_layers": 2, "num_heads": 4}
LINEAR = ["linear_attention", "full_attention"] * 2
BERT = {key: value for key, value in SHAPE.items() if key != "initializer_range"} | {"is_decoder": True, "initializer_range": 0.3}
REFUSED = {
    "state space": (lambda: t.MambaConfig(**MAMBA), "without an ordinary key/value cache"),
    "state space, newer": (
        lambda: t.Mamba2Config(**MAMBA, num_heads=8, head_dim=8, n_groups=1),
        "without an ordinary key/value cache",
    ),
    "recurrent": (
        lambda: t.RwkvConfig(vocab_size=260, hidden_size=32, num_hidden_layers=2, context_length=64),
        "state-space layers",
    ),
    "state space and attention": (
        lambda: t.JambaConfig(**GROUPED, num_experts=2, use_mamba_kernels=False, attn_layer_period=2, attn_layer_offset=1),
        "without an ordinary key/value cache",
    ),
    "linear and full attention": (
        lambda: t.Qwen3NextConfig(**GROUPED, **EXPERTS, head_dim=8, num_experts=4, layer_types=LINEAR),
        "linear_attention",
    ),
    "convolution and attention": (
        lambda: t.Lfm2Config(**GROUPED, layer_types=["conv", "full_attention"] * 2),
        "conv",
    ),
    "chunks": (
        lambda: t.Llama4TextConfig(**GROUPED, intermediate_size_mlp=48, num_local_experts=2, attention_chunk_size=WINDOW),
        "chunked_attention",
    ),
    "biases by distance": (
        lambda: t.BloomConfig(**SPECIAL, vocab_size=260, hidden_size=32, n_layer=2, n_head=4),
        "does not run with a 4-D attention mask",
    ),
    "biases by distance, option": (
        lambda: t.FalconConfig(**SHAPE, alibi=True),
        "does not run with a 4-D attention mask",
    ),
    "a mask of its own in every layer": (
        lambda: t.GPTNeoConfig(
            **SPECIAL,
            vocab_size=260,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
            window_size=WINDOW,
            max_position_embeddings=512,
        ),
        "ignores the attention mask",
    ),
    "reads both ways already": (lambda: t.BertConfig(**BERT | {"is_decoder": False}), "its own causal mask"),
    "counts positions from 2": (lambda: t.RobertaConfig(**BERT), "positions"),
    "counts padding as positions": (
        lambda: t.TrOCRConfig(
            **{
                **SPECIAL,
                "vocab_size": 260,
                "d_model": 32,
                "decoder_layers": 2,
                "decoder_attention_heads": 4,
                "decoder_ffn_dim": 48,
            }
        ),
        "padded on the left",
    ),
    "no cache that is given": (
        lambda: t.OpenAIGPTConfig(**SPECIAL, vocab_size=260, n_embd=32, n_layer=2, n_head=4, n_positions=64),
        "fills a key/value cache of 0 layers and its config names 2",
    ),
    "layers that run several times": (
        lambda: t.DoryConfig(**GROUPED, head_dim=8, n_input_layers=1, n_recurrent_layers=2, n_output_layers=1),
        "fills a key/value cache of",
    ),
    "does not run by itself either": (
        lambda: t.XmodConfig(**BERT, languages=["en_XX", "de_DE"]),
        "under transformers alone (Input language unknown",
    ),
    "reads fewer tokens than a question has": (
        lambda: t.LlamaConfig(**GROUPED | {"max_position_embeddings": 6}),
        "allows 6 tokens",
    ),
    "layers that share keys": (
        lambda: t.Gemma3nTextConfig(
            **GROUPED,
            head_dim=8,
            layer_types=MIXED,
            num_kv_shared_layers=2,
            hidden_size_per_layer_input=8,
            vocab_size_per_layer_input=260,
            laurel_rank=4,
            activation_sparsity_pattern=[0.0] * 4,
        ),
        "without an ordinary key/value cache",
    ),
}


@pytest.mark.filterwarnings("ignore")  # some of these families warn about kernels and settings of their own
@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_cannot_serve_is_refused_with_the_reason(case):
    config, words = REFUSED[case]
    model = built(config()).train()
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    with pytest.raises(UnsupportedModelError) as caught:
        BituneModel.create(model)
    assert words in str(caught.value) and repr(model.config.model_type) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert model.training and [name for name, p in model.named_parameters() if p.requires_grad] == trainable


@pytest.mark.parametrize("name", ["num_attention_heads", "num_hidden_layers"])
def test_what_is_needed_of_a_config_is_asked_for_before_anything_runs(name):
    """Configs of one's own: transformers runs a model whose layers were built, whatever its config has lost since."""
    for value, words in ((None, f"has no {name}"), ([4, 4], rf"has {name} \[4, 4\]"), (0, f"has {name} 0")):
        model = tiny_model()
        vars(model.config)[name] = value
        with pytest.raises(UnsupportedModelError, match=words):
            BituneModel.create(model)


def test_what_a_config_need_not_say_comes_from_the_modules():
    """A checkpoint names the width of its base, and token ids are checked against its embedding."""
    plain = check_supported(tiny_model())
    model = tiny_model()
    model.resize_token_embeddings(300)
    model.config.vocab_size = 7
    vars(model.config)["hidden_size"] = None
    layout = check_supported(model)
    assert (vocabulary_size(model), layout.hidden_size) == (300, plain.hidden_size)
    assert bitune_on(model).to_checkpoint().config.base.hidden_size == plain.hidden_size


def test_a_model_without_a_longest_input_has_no_limit_and_one_of_distances_has_its_own():
    model = tiny_model()
    vars(model.config)["max_position_embeddings"] = None
    assert (check_supported(model).context, check_supported(model).limit) == (sys.maxsize, None)
    model = built(CONFIGS["mpt"]())
    assert (check_supported(model).context, check_supported(model).limit) == (512, 512)
    with pytest.raises(RuntimeError):  # transformers' own table of distances ends there
        model(torch.ones(1, 513, dtype=torch.long))


def test_a_layer_that_looks_at_the_whole_batch_is_refused():
    """As experts of a fixed capacity do: one prompt alone shows nothing of it."""
    model = tiny_model()
    model.model.layers[1].mlp.register_forward_hook(lambda _, __, output: output - output.mean(0, keepdim=True))
    with pytest.raises(UnsupportedModelError, match="cannot share a batch|causal mask"):
        BituneModel.create(model)
    model = tiny_model()
    model.model.layers[1].mlp.register_forward_hook(lambda _, __, output: output * (1 + 0.1 * (len(output) > 2)))
    with pytest.raises(UnsupportedModelError, match="cannot share a batch"):
        BituneModel.create(model)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        TypeError("unsupported operand"),
        AttributeError("'NoneType' object has no attribute 'x'"),
        RuntimeError("CUDA error: device-side assert triggered"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB of size 1"),
        KeyError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("call", [0, 2])
def test_what_is_no_answer_to_the_question_keeps_its_name(error, call):
    """A bug or a full memory says nothing about whether a model is supported: in the plain forwards or under our masks."""
    model, calls = tiny_model(), []

    def fail(*_):
        calls.append(None)
        if len(calls) > call:
            raise error

    model.model.layers[2].register_forward_pre_hook(fail)
    with pytest.raises(type(error)) as caught:
        BituneModel.create(model)
    assert caught.value is error and model.training is False


@pytest.mark.parametrize(
    "config",
    [
        t.T5Config(**ENCODER, d_kv=8, d_ff=48),
        t.BartConfig(vocab_size=260, d_model=32, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32, decoder_ffn_dim=32),
    ],
    ids=["t5", "bart"],
)
def test_an_encoder_decoder_is_refused_with_the_reason(config):
    with pytest.raises(UnsupportedModelError, match="encoder-decoder.*decoder-only"):
        BituneModel.create(built(config, kind=AutoModelForSeq2SeqLM))


def test_attention_that_takes_no_mask_is_refused_at_once_and_later():
    with pytest.raises(UnsupportedModelError, match="'flex_attention'.*'sdpa' or 'eager'"):
        BituneModel.create(tiny_model(attention="flex_attention"))
    model = bitune_on(tiny_model())
    (prompt,) = ids(9)
    model.base.set_attn_implementation("flex_attention")
    with pytest.raises(UnsupportedModelError, match="'flex_attention'"):
        model.generate(prompt, **GREEDY)
    model.base.set_attn_implementation("sdpa")
    model.generate(prompt, **GREEDY)


def test_attention_may_change_between_sdpa_and_eager():
    model = bitune_on(tiny_model("gemma3"))
    prompt, answer = ids(13, 4)
    with torch.no_grad():
        sdpa = model(prompt, answer).logits
        model.base.set_attn_implementation("eager")
        assert_close(model(prompt, answer).logits, sdpa)


@pytest.mark.parametrize(("family", "kind"), [("llama", "lora"), ("gemma3", "dora"), ("phi", "ia3")])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_are_served_and_come_near_32(family, kind, dtype):
    adapter = new_peft_config(tiny_model(family), kind, rank=4)
    exact = randomized(BituneModel.create(tiny_model(family), peft_config=adapter), scale=0.05)
    model = BituneModel.from_checkpoint(exact.to_checkpoint(), tiny_model(family).to(dtype))
    prompt, answer = ids(13, 4)
    with torch.no_grad():
        wanted, found = exact(prompt, answer), model(prompt, answer)
    assert found.logits.dtype == dtype and found.loss.dtype == torch.float32
    assert_close(found.logits.float(), wanted.logits, allowed=0.15 * float(wanted.logits.abs().max()))


def test_a_base_whose_config_turns_the_cache_off_generates_the_same():
    """Bases that were trained with gradient checkpointing are often saved so."""
    (prompt,) = ids(9)
    expected = bitune_on(tiny_model()).generate(prompt, **GREEDY)
    base = built(copy.deepcopy(FAMILIES["llama"]))
    base.config.use_cache = base.generation_config.use_cache = False
    assert torch.equal(bitune_on(base).generate(prompt, **GREEDY), expected)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("gpt2", {"c_attn": False, "c_proj": True, "c_fc": True}),
        ("opt", {"q_proj": False, "k_proj": False, "v_proj": False, "out_proj": False, "fc1": False, "fc2": False}),
        ("falcon", {"query_key_value": False, "dense": False, "dense_h_to_4h": True, "dense_4h_to_h": True}),
    ],
)
def test_the_linear_layers_of_a_family_are_found_in_its_decoder(family, expected):
    assert linear_layers(built(CONFIGS[family]())) == expected


def test_in_a_mixture_of_experts_the_attention_is_adapted():
    for family in EXPERT_FAMILIES - {"deepseek_v3"}:
        assert new_peft_config(built(CONFIGS[family]())).target_modules == {"q_proj", "k_proj", "v_proj", "o_proj"}
    latent = {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"}
    assert new_peft_config(built(CONFIGS["deepseek_v3"]())).target_modules == latent


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning")
def test_adapters_that_peft_would_put_on_fused_experts_are_refused():
    model = built(CONFIGS["deepseek_v3"]())
    targets = ["q_a_proj", "gate_proj", "up_proj"]
    with refused(model, "target_parameters"):
        BituneModel.create(model, peft_config=LoraConfig(target_modules=targets, task_type="CAUSAL_LM"))
    with refused(model, "gate_proj", "choose among", error=ConfigError):
        new_peft_config(model, targets=targets)


def test_a_base_that_gives_no_numbers_is_called_that():
    for name, value, words in (
        ("layers.1.mlp.up_proj", float("nan"), "gives NaN or infinite keys, values or logits in torch.float32"),
        ("lm_head", float("inf"), "gives NaN or infinite keys, values or logits in torch.float32"),
        ("v_proj", 0.0, "values of all layers of this 'llama' base are zeros"),
    ):
        model = tiny_model()
        for parameter_name, parameter in model.named_parameters():
            if name in parameter_name:
                parameter.data.fill_(value)
        with pytest.raises(UnsupportedModelError, match=words):
            check_supported(model)
