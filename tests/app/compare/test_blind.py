"""A blind run: nothing that leaves the server tells which answer is whose, until names are shown."""

import json
import re
from dataclasses import replace
from html import unescape

import pytest

from app.compare import handlers as module
from app.compare.handlers import CompareHandlers, Screen
from app.ui.templates import faithful
from bitune.schema.variants import MixingRatios
from tests.app.ui import visiting
from tests.browser.served import tiny_engine
from tests.tiny import bitune_on

WHAT_IFS = {"bitune: every layer at 0.00": {"of": "bitune", "keys": [0.0] * 4, "values": [0.0] * 4, "colour": 0}}
NAMES = ["base", "lora", "bitune", *WHAT_IFS]
# What would tell a variant: names, words about it, the picture of its passes, a colour of its own, a mark, figures of how it read.
TELLING = (
    *("base", "lora", "bitune", "layer"),
    *("reads", "adapter", "mixes", "bt-causal", "bt-bidirectional", "bt-what-if", "bt-p1"),
    *(f"bt-v{colour}" for colour in range(6)),
    *("First token", "tokens/s", "from memory", "Question:"),
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return tiny_engine(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def handlers(engine):
    return CompareHandlers(engine, {})


def sent(screen: Screen) -> str:
    """All of a screen that the browser gets."""
    return json.dumps([screen.answers, screen.prompts, screen.live])


def run(handlers: CompareHandlers, variants: list[str], blind: bool = True, **options: object) -> list[Screen]:
    values = {"prompt": "hello", "variants": variants, "what_ifs": WHAT_IFS, "blind": blind, "max_new_tokens": 12, **options}
    return visiting.run(handlers, **values)


def test_no_screen_of_a_blind_run_tells_a_variant(handlers):
    shown = visiting.every_screen(handlers, prompt="hello", variants=NAMES, what_ifs=WHAT_IFS, blind=True, max_new_tokens=12)
    assert len(shown) >= 3 and not shown[-1].running
    for screen in shown:
        found = [words for words in TELLING if words in sent(screen)]
        assert not found, f"{found} in {sent(screen)}"
        assert [f"Answer {letter}" in screen.answers for letter in "ABCDE"] == [True] * 4 + [False]
        assert screen.latest_run is None, "other tabs would say whose answer it is"
        assert screen.answers.count("bt-v6") == 8


def test_what_would_tell_a_variant_is_there_once_names_are_shown(handlers):
    *_, last = run(handlers, NAMES)
    shown = handlers.unveiled(last)
    assert not [
        words for words in TELLING if words not in sent(shown) and words not in ("from memory", "bt-v3", "bt-v4", "bt-v5")
    ]
    assert "bt-p1" in sent(shown), "the what-if has the colour of its checkpoint, and a pattern"
    assert shown.run_id == last.run_id
    assert shown.latest_run.answers == last.texts and list(shown.latest_run.answers) == list(last.texts)
    positions = [shown.answers.index(f"</i>{name}</span>") for name in last.texts]
    assert positions == sorted(positions), "columns stay where they were"
    assert shown.unveiled and handlers.unveiled(shown) == replace(shown, unveiled=False), "the names appear once"


def test_columns_are_shuffled_and_the_request_is_not(handlers, monkeypatch):
    monkeypatch.setattr(module, "shuffled", lambda names: list(reversed(names)))
    *_, blind = run(handlers, NAMES)
    *_, plain = run(handlers, NAMES, blind=False)
    assert list(blind.texts) == NAMES[::-1]
    assert blind.texts == plain.texts, "each variant answers as it does where names are shown"
    assert blind.request == plain.request
    columns = blind.answers.split("<article")[1:]
    for place, (text, column) in enumerate(zip(blind.texts.values(), columns, strict=True)):
        assert f"Answer {'ABCD'[place]}" in column
        drawn = re.search(r'dir="auto">(.*?)</div>', column, re.DOTALL)[1]
        assert "".join(unescape(re.sub(r"<.*?>", "", drawn)).split()) == "".join(faithful(text).split())


def test_the_base_reads_what_it_always_reads(engine, handlers, monkeypatch):
    model = bitune_on(engine.base, "bitune", seed=7, prompt_template="Other: {prompt}")
    engine._register("zebra", engine._entries["bitune"].__class__(model.variant, None, model, engine.checkpoints["bitune"]))
    try:
        monkeypatch.setattr(module, "shuffled", lambda names: list(reversed(names)))
        *_, last = run(handlers, ["base", "lora", "zebra"])
        assert last.update.prompts["base"] == last.update.prompts["lora"]
    finally:
        engine.remove_checkpoint("zebra")


def test_every_order_comes(handlers):
    orders = {tuple(module.shuffled(NAMES[:2])) for _ in range(100)}
    assert len(orders) == 2


def test_one_answer_alone_is_not_blind(handlers):
    *_, last = run(handlers, ["lora"])
    assert not last.blind and "lora" in last.answers and last.ballot is None
    *_, last = run(handlers, NAMES[:2], blind="yes")
    assert not last.blind, "only the page's own value counts"


def test_a_stopped_blind_run_stays_blind_and_is_not_judged(handlers):
    cut = next(screen for screen in run(handlers, NAMES, max_new_tokens=200) if screen.update is not None)
    settled = handlers.finish(cut)
    assert settled.blind and "by you" in settled.answers
    assert not [words for words in TELLING if words in sent(settled)]
    assert settled.ballot is None and "was stopped" in settled.not_judged
    assert "lora" in handlers.unveiled(settled).answers


def test_the_ballot_of_a_run(handlers):
    *before, last = run(handlers, NAMES, temperature=0.5, seed=3)
    assert {screen.ballot for screen in before} == {None}
    ballot = last.ballot
    assert (ballot.run, ballot.prompt, ballot.template, ballot.blind) == (last.run_id, "hello", "own", True)
    assert ballot.sampling == {"max_new_tokens": 12, "temperature": 0.5, "top_p": 1.0, "seed": 3}
    assert list(ballot.answers) == list(last.update.completions)
    assert ballot.what_ifs == {name: {key: value[key] for key in ("of", "keys", "values")} for name, value in WHAT_IFS.items()}
    assert MixingRatios.constant(4, 0.0).keys == tuple(ballot.what_ifs[NAMES[-1]]["keys"])
    assert not handlers.unveiled(last).ballot.blind
    *_, failed = run(handlers, ["base", "ghost"])
    assert failed.ballot is None and not failed.not_judged


def test_answers_to_a_follow_up_say_why_they_are_not_judged(handlers):
    *_, last = run(handlers, ["base", "lora"], blind=False, what_ifs={})
    assert last.ballot is not None and not last.not_judged
    turn = {"prompt": "hello", "answers": last.texts}
    *_, later = run(handlers, ["base", "lora"], blind=False, what_ifs={}, history=[turn])
    assert later.ballot is None and "follow-up question" in later.not_judged


def test_a_run_is_saved_once_its_names_are_shown(handlers):
    *before, last = run(handlers, NAMES)
    assert handlers.recording_of(last) is None and "Vote first" in last.not_saved
    assert all("goes on" in screen.not_saved for screen in before)
    shown = handlers.unveiled(last)
    assert not shown.not_saved and handlers.recording_of(shown).update == last.update
    assert "no run to save" in handlers.failed("no").not_saved
