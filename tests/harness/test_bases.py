"""Bases of other people: what their generation_config.json says, and a rotary embedding that switches at a length."""

import json
import shutil

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, Phi3Config

from bitune.errors import BituneError
from bitune.harness import BituneLM
from tests.closeness import assert_close
from tests.harness.tasks import ask
from tests.tiny import GROUPED, longrope_settings, tiny_tokenizer

SWITCH, NEW = 24, 6
CONTEXTS = ["One", "And two of them", "x" * 40, "y" * 33]


def generate(lm, contexts: list[str], **settings: object) -> list[str]:
    requests = ask("generate_until", *((context, {"max_gen_toks": NEW, "until": ["\0"], **settings}) for context in contexts))
    return lm.generate_until(requests, disable_tqdm=True)


@pytest.fixture
def longrope(tmp_path):
    """A base whose rotary embedding switches at SWITCH tokens."""
    torch.manual_seed(0)
    config = Phi3Config(
        **GROUPED | {"max_position_embeddings": 64},
        original_max_position_embeddings=SWITCH,
        rope_parameters=longrope_settings(SWITCH, [4.0, 3.0, 2.0, 8.0]),
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "values",
    [
        {"use_cache": False},
        {"stop_strings": ["a"]},
        {"return_dict_in_generate": True},
        {"cache_implementation": "static"},
        {"prompt_lookup_num_tokens": 2},
        {"num_beams": 3},
        {"repetition_penalty": 3.0},
        {"forced_eos_token_id": 9},
        {"guidance_scale": 2.0},
        {"do_sample": True, "temperature": 5.0},
        {"min_new_tokens": 9, "max_length": 3},
    ],
)
def test_answers_do_not_depend_on_what_the_base_wishes(work, tmp_path, values):
    """Beyond its token ids; `hf` on a base with no wishes gives the same."""
    shutil.copytree(work / "base", tmp_path / "base")
    path = tmp_path / "base" / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    hf = HFLM(pretrained=str(work / "base"), device="cpu", dtype="float32")
    assert generate(BituneLM(base=tmp_path / "base", device="cpu"), CONTEXTS) == generate(hf, CONTEXTS)


def test_prompts_on_either_side_of_a_switch_answer_as_alone_and_as_hf(longrope):
    lm, hf = BituneLM(base=longrope, device="cpu"), HFLM(pretrained=str(longrope), device="cpu", dtype="float32", batch_size=1)
    together = generate(lm, CONTEXTS)
    assert together == [generate(lm, [context])[0] for context in CONTEXTS] == generate(hf, CONTEXTS)
    pairs = [(context, " yes") for context in CONTEXTS]
    likelihoods = [[value for value, _ in one.loglikelihood(ask("loglikelihood", *pairs), disable_tqdm=True)] for one in (lm, hf)]
    assert_close(*likelihoods)


def test_a_prompt_that_would_cross_is_refused_and_a_shorter_max_length_runs_it(longrope):
    with pytest.raises(BituneError, match=f"A prompt of 22 tokens .* up to {NEW} passes {SWITCH}, .*allow at most 3"):
        generate(BituneLM(base=longrope, device="cpu"), ["z" * 22])
    assert generate(BituneLM(base=longrope, device="cpu", max_length=SWITCH), ["z" * 22])
