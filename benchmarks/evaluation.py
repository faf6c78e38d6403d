"""Scoring questions with four choices: `bitune evaluate` against lm-eval's `hf` on the same base."""

import random

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from benchmarks.bases import WORDS, open_engine, plain_model
from benchmarks.measures import Measured, in_turn, ratio, timed
from benchmarks.setting import Setting
from bitune.data.examples import Example, example_of
from bitune.evaluation.run import evaluate
from bitune.evaluation.scores import question, score

BATCH = 8  # of both: what `bitune evaluate` takes by default


def questions(number: int) -> list[Example]:
    """Questions of 15 to 30 words with choices of 1 to 8, as those of ARC are; the words are drawn."""
    draw = random.Random(0)

    def words(fewest: int, most: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(fewest, most)))

    return [
        example_of({"task": "drawn", "question": words(15, 30), "choices": [words(1, 8) for _ in range(4)], "label": 0})
        for _ in range(number)
    ]


def against_harness(setting: Setting) -> dict[str, Measured]:
    """The time of the scores alone, both models loaded before; RuntimeError if the two give other scores."""
    engine, examples = open_engine(setting, []), questions(4 if setting.quick else 100)
    tokenizer = engine.base.tokenizer
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(tokenizer.pad_token_id)  # lm-eval wants one
    hf = HFLM(pretrained=plain_model(setting), tokenizer=tokenizer, batch_size=BATCH, max_length=engine.base_facts.context)
    requests = [
        Instance("loglikelihood", {}, (example.prompt, choice), index)
        for index, example in enumerate(examples)
        for choice in example.choices
    ]

    def theirs() -> list[float]:
        return [value for value, _ in hf.loglikelihood(requests, disable_tqdm=True)]

    def ours() -> None:
        evaluate(engine.manager, engine.variants, examples, tokenizer, batch_size=BATCH)

    scores = score(engine.manager, engine.variants, [question(example, tokenizer) for example in examples[:8]])["base"]
    difference = torch.tensor([[one.sum for one in row] for row in scores]).flatten() - torch.tensor(theirs()[: len(scores) * 4])
    if difference.abs().max() > 0.1:
        raise RuntimeError(f"The scores differ from lm-eval's by up to {difference.abs().max():.3f}: not the same is measured.")
    times = in_turn({"hf": timed(theirs), "evaluate": timed(ours)}, setting.few, warm_up=False)
    return {"evaluate": ratio(times["evaluate"], times["hf"])}
