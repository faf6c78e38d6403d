"""The harness on a base alone against lm-eval's own `hf` on the same base: tokens, scores, answers and chats, for many tokenizers.

Where a tokenizer appends something to a text, `hf` gets the one that does not: it would score and continue what was appended.
"""

import json

import pytest
from lm_eval.models.huggingface import HFLM

from bitune.errors import ConfigError, DataError
from bitune.harness import BituneLM
from tests.harness.tasks import ask, choice_task, open_task, run
from tests.tiny import tiny_model
from tests.tokenizers import CHAT, KINDS, LOADABLE

WITH_BOS = "{{ bos_token }}" + CHAT
REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT


@pytest.fixture
def pair(tmp_path, request):
    """Ours and theirs on one base with a tokenizer of the kind asked for."""
    name, template, length = request.param if isinstance(request.param, tuple) else (request.param, CHAT, None)
    tokenizer, other = KINDS[name].make(), KINDS[name].without_end()
    tokenizer.chat_template = other.chat_template = template
    model = tiny_model()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    theirs = HFLM(pretrained=model, tokenizer=other, batch_size=1, max_length=length or 512)
    return BituneLM(base=str(tmp_path), device="cpu", max_length=length), theirs


def contexts(lm) -> list[str]:
    own = lm.tokenizer.bos_token or ""
    return ["a on text", "Q: on\nA:", own + "Q: on\nA:", "ends so: ", "  begins", own, " \n" if lm.tok_encode("") else "x"]


def same_scores(pair, pairs: list[tuple[str, str]]) -> None:
    ours, theirs = (lm.loglikelihood(ask("loglikelihood", *pairs), disable_tqdm=True) for lm in pair)
    for (value, greedy), (expected, expected_greedy) in zip(ours, theirs, strict=True):
        assert value == pytest.approx(expected, rel=1e-4, abs=1e-3) and greedy == expected_greedy


@pytest.mark.parametrize("pair", LOADABLE, indirect=True)
def test_scores_are_those_of_hf(pair):
    """With and without an own BOS, without a context, over a border that a token would cross."""
    texts = [text for text in contexts(pair[0]) if text]
    asked = [(text, answer) for text in texts for answer in (" ab", " on text")] + [("", "on"), ("", "ab on"), ("xa", "b on")]
    for text in texts:
        assert pair[0].tok_encode(text) == pair[1].tok_encode(text)
        assert pair[0]._encode_pair(text, " on ab") == pair[1]._encode_pair(text, " on ab")
    same_scores(pair, asked)
    rolling = [lm.loglikelihood_rolling(ask("r", ("a on text",), ("on" * 300,)), disable_tqdm=True) for lm in pair]
    assert rolling[0] == pytest.approx(rolling[1], rel=1e-4)


@pytest.mark.parametrize("pair", LOADABLE, indirect=True)
def test_answers_are_those_of_hf(pair):
    settings = (
        {"max_gen_toks": 8, "until": ["\n\n"]},
        {"max_new_tokens": 6},
        {"until": "e", "max_gen_toks": 9, "do_sample": False},
    )
    asked = [(text, how) for text in contexts(pair[0]) if text for how in settings]
    ours, theirs = (lm.generate_until(ask("generate_until", *asked), disable_tqdm=True) for lm in pair)
    assert ours == theirs and any(ours)


@pytest.mark.parametrize("pair", [("llama3", CHAT, 12), ("gpt2", CHAT, 12)], indirect=True)
def test_long_contexts_are_cut_as_by_hf(pair):
    own = pair[0].tokenizer.bos_token
    texts = ["abcdefghijklmnopqrstuvwxyz", own + "abcdefghijklmnopqrstuvwxyz", "abc"]
    same_scores(pair, [(text, answer) for text in texts for answer in (" yes", " or")])
    asked = [(text, {"max_gen_toks": 5}) for text in texts]
    ours, theirs = (lm.generate_until(ask("generate_until", *asked), disable_tqdm=True) for lm in pair)
    assert ours == theirs


@pytest.mark.parametrize(
    "pair",
    [(name, template, None) for name in ("llama3", "bos_and_eos", "no_bos", "llama2") for template in (CHAT, WITH_BOS, REFUSES)],
    indirect=True,
)
def test_chats_are_those_of_hf(pair):
    """The system role is left out where it is refused; the last message is left open where it is to be continued."""
    system, user, said = ({"role": role, "content": f"on {role}"} for role in ("system", "user", "assistant"))
    for chat, opened in (([system, user], True), ([user], True), ([user, said, user], True), ([system, user, said], False)):
        texts = [lm.apply_chat_template(list(chat), add_generation_prompt=opened) for lm in pair]
        assert texts[0] == texts[1] and pair[0].tok_encode(texts[0]) == pair[1].tok_encode(texts[1])
    same_scores(pair, [(texts[0], " ab"), (texts[0], "on")])


@pytest.mark.parametrize("pair", [("llama3", WITH_BOS, None), ("bos_and_eos", REFUSES, None)], indirect=True)
def test_whole_runs_with_chats_are_those_of_hf(pair, work, tmp_path):
    """Few shots as turns of a chat, a system instruction, a task's own beginning of the answer."""
    (tmp_path / "open.jsonl").write_text("".join(json.dumps({"question": f"on {n}", "answer": "ab"}) + "\n" for n in range(4)))
    more = {"fewshot_split": "test", "num_fewshot": 1, "gen_prefix": "So:"}
    chosen = {"apply_chat_template": True, "system_instruction": "on ab", "limit": 2, "model_args": None, "batch_size": 1}
    for multiturn in (True, False):
        results = [
            run(
                work,
                [choice_task(work) | more, open_task(work, tmp_path / "open.jsonl") | more],
                **chosen,
                model=lm,
                fewshot_as_multiturn=multiturn,
            )["samples"]
            for lm in pair
        ]
        for name in ("choices", "open"):
            for sample, expected in zip(results[0][name], results[1][name], strict=True):
                assert sample["arguments"] == expected["arguments"]
                if name == "open":
                    assert sample["resps"] == expected["resps"]
                for (value,), (wanted,) in zip(sample["resps"], expected["resps"], strict=True) if name == "choices" else ():
                    assert value == pytest.approx(wanted, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("pair", [("llama3", {"a": CHAT, "b": CHAT}, None)], indirect=True)
def test_no_template_among_several_is_one_sentence(pair):
    ours, _ = pair
    for ask_for in (lambda: ours.chat_template(True), lambda: ours.chat_template("c")):
        with pytest.raises(ConfigError, match="no such chat template"):
            ask_for()
    with pytest.raises(ConfigError, match="none is called 'default'.*--apply_chat_template"):
        ours.apply_chat_template([{"role": "user", "content": "on"}])


@pytest.mark.parametrize("pair", ["llama3"], indirect=True)
def test_what_cannot_be_scored_is_one_sentence(pair):
    for asked in (("", ""), ("on", ""), ("", "<s>")):
        with pytest.raises(DataError, match="nothing to score|no token of its own"):
            pair[0].loglikelihood(ask("loglikelihood", asked), disable_tqdm=True)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"until": [5]}, r"until is \[5\]"),
        ({"max_gen_toks": 0}, "max_gen_toks is 0"),
        ({"max_gen_toks": "many"}, "max_gen_toks is 'many'"),
        ({"do_sample": "no"}, "do_sample is 'no'"),
        ({"do_sample": True, "top_p": 3}, "top_p is 3"),
        ({"temperature": float("nan")}, "temperature is nan"),
    ],
)
@pytest.mark.parametrize("pair", ["llama3"], indirect=True)
def test_settings_of_a_task_without_sense_are_one_sentence(pair, settings, words):
    with pytest.raises(ConfigError, match=words):
        pair[0].generate_until(ask("generate_until", ("on", settings)), disable_tqdm=True)
