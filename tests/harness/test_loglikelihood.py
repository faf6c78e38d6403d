"""Log-likelihoods for lm-eval against a brute force over the model."""

import pytest
import torch

import bitune.harness.model
from bitune.errors import ConfigError
from tests.closeness import assert_clear, assert_close
from tests.harness.tasks import ask, model


def brute(checkpoint, context: list[int], answer: list[int]) -> tuple[float, bool]:
    """Of one answer, by the model's own forward."""
    with torch.no_grad():
        logits = checkpoint(torch.tensor([context]), torch.tensor([answer])).logits[0]
    assert_clear(logits)
    value = logits.log_softmax(-1)[range(len(answer)), answer].sum().item()
    return value, logits.argmax(-1).tolist() == answer


def check(checkpoint, lm, pairs: list[tuple[str, str]], tokens: list[tuple[list[int], list[int]]]) -> None:
    values = lm.loglikelihood(ask("loglikelihood", *pairs), disable_tqdm=True)
    for (value, greedy), pair in zip(values, tokens, strict=True):
        expected, expected_greedy = brute(checkpoint, *pair)
        assert_close(value, expected)
        assert greedy == expected_greedy


def test_log_likelihoods_equal_a_brute_force(work, engine, checkpoint):
    """Many continuations of one context (more than are scored together), no context, a space at its end, its own BOS."""
    ids = engine.base.tokenizer.encode
    pairs = [("A question:", f" answer {n}") for n in range(20)] + [("Another", " one"), ("", "Bare"), ("", "Bare too")]
    spaced = [("Ends so: ", "it"), (" \n", "white")]
    tokens = [(ids(context) or [256], ids(answer)) for context, answer in pairs]
    tokens += [(ids("Ends so:"), ids(" it")), ([256], ids(" \nwhite"))]
    assert ids("<s>Hi")[0] == 256
    all_pairs = [*pairs, *spaced, ("<s>Hi", " you")]
    check(checkpoint, model(work), all_pairs, [*tokens, (ids("<s>Hi"), ids(" you"))])


def test_continuations_share_a_context_but_not_without_end(work, monkeypatch):
    questions = []
    keep = bitune.harness.model.score
    monkeypatch.setattr(bitune.harness.model, "score", lambda *given: questions.extend(given[2]) or keep(*given))
    pairs = [(context, f" {n}") for n in range(20) for context in ("One", "Two", "")]
    model(work).loglikelihood(ask("loglikelihood", *pairs), disable_tqdm=True)
    assert sorted(len(question.choices) for question in questions) == [1] * 20 + [4, 4, 16, 16]


def test_what_the_model_would_say_is_greedy(work, engine, checkpoint):
    context = engine.base.tokenizer.encode("Why?")
    greedy_ids = []
    for _ in range(3):
        with torch.no_grad():
            logits = checkpoint(torch.tensor([context]), torch.tensor([[*greedy_ids, 0]])).logits
        greedy_ids.append(int(logits[0, -1].argmax()))
    lm = model(work)
    assert [
        greedy for _, greedy in lm._loglikelihood_tokens([(None, context, greedy_ids), (None, context, greedy_ids[::-1] + [3])])
    ] == [
        True,
        False,
    ]


def test_long_contexts_lose_their_beginning(work, engine, checkpoint):
    """Their BOS too, as in lm-eval's `hf`: see test_like_hf.py."""
    ids = engine.base.tokenizer.encode
    lm = model(work, max_length="12")
    pairs = [("abcdefghijklmnopqrstuvwxyz", " yes"), ("<s>abcdefghijklmnopqrstuvwxyz", " no"), ("abc", " or")]
    tokens = [(ids("rstuvwxyz"), ids(" yes")), (ids("qrstuvwxyz"), ids(" no")), (ids("abc"), ids(" or"))]
    check(checkpoint, lm, pairs, tokens)
    with pytest.raises(ConfigError, match="continuation of 13 tokens"):
        lm.loglikelihood(ask("loglikelihood", ("a", "0123456789012")), disable_tqdm=True)


def test_a_tokenizer_that_adds_a_bos_adds_one(work):
    """As Llama's: one BOS in front of a context without, none beside one that a chat template wrote."""
    from tokenizers.processors import TemplateProcessing

    lm = model(work)
    lm.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])
    plain = lm.tokenizer("you", add_special_tokens=False).input_ids
    for context in ("Hi", "<s>Hi"):
        prompt, answer = lm._encode_pair(context, "you")
        assert prompt == [256, *lm.tokenizer("Hi", add_special_tokens=False).input_ids] and answer == plain
    assert lm._encode_pair(" ", "you")[0] == [256]


def test_rolling_equals_a_plain_loop(work, engine, checkpoint):
    """Every token once, in windows of 20: the first after the BOS, the others after one token, the last after all that fit."""
    lm = model(work, max_length=20, batch_size=2)
    texts = ["short", "x" * 20, "A text of fifty-three tokens, which are bytes as they go", ""]
    totals = lm.loglikelihood_rolling(ask("loglikelihood_rolling", *((text,) for text in texts)), disable_tqdm=True)
    for text, value in zip(texts, totals, strict=True):
        tokens, expected, done = engine.base.tokenizer.encode(text), 0.0, 0
        while done < len(tokens):
            part = tokens[done : done + 20]
            context = [256] if done == 0 else tokens[done + len(part) - 21 : done]
            expected += brute(checkpoint, context, part)[0]
            done += len(part)
        assert_close(value, expected)
