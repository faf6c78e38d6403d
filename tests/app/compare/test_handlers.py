"""From a request to screens, on a real tiny engine: streaming, errors as sentences, Stop, recordings."""

import json
import re
from dataclasses import replace

import pytest

from app.compare.handlers import CompareHandlers, Screen
from app.compare.recorded import FOLDER, load_all, path_of, read, record, to_json
from app.ui.examples import EXAMPLES
from bitune.errors import BituneError, DataError
from tests.app.ui import visiting
from tests.browser.served import TEMPLATE, tiny_engine

NAMES = ("template", "max_new_tokens", "temperature", "top_p", "seed")
GREEDY = ("own", 12, 0, 1, 0)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return tiny_engine(tmp_path_factory.mktemp("tiny"))


def run(handlers: CompareHandlers, prompt: object, variants: object, *options: object) -> list[Screen]:
    """The screens of a run, as the page shows them."""
    return visiting.run(handlers, prompt=prompt, variants=variants, **dict(zip(NAMES, options, strict=True)))


@pytest.fixture
def handlers(engine):
    return CompareHandlers(engine, {})


def test_a_run_streams_and_ends(handlers):
    shown = run(handlers, "hello", ["bitune", "base"], *GREEDY)
    assert [screen.running for screen in shown] == [True] * (len(shown) - 1) + [False]
    assert "Waiting for the model" in shown[0].answers
    last = shown[-1]
    assert list(last.update.completions) == ["base", "bitune"], "columns stand in the engine's order"
    assert last.update["base"].text != last.update["bitune"].text
    assert TEMPLATE.format(prompt="hello").splitlines()[0] in last.prompts
    assert last.answers.count("<article") == 2


BAD = [
    ("", ["base"], GREEDY, "empty"),
    ("  \n", ["base"], GREEDY, "empty"),
    ("long " * 200, ["base"], GREEDY, "512"),
    ("x" * 1_000_000, ["base"], GREEDY, "1,000,000"),
    ("a\x00b", ["base"], GREEDY, "control character"),
    ("a\ud800b", ["base"], GREEDY, "surrogate"),
    (None, ["base"], GREEDY, "empty"),
    ("hi", [], GREEDY, "No variant is chosen"),
    ("hi", ["bsae"], GREEDY, "Did you mean"),
    ("hi", ["base"], ("mine", 12, 0, 1, 0), "mine"),
    ("hi", ["base"], ("own", 0, 0, 1, 0), "max_new_tokens"),
    ("hi", ["base"], ("own", 10**9, 0, 1, 0), "no page allows more than"),
    ("hi", ["base"], ("own", 12, -1, 1, 0), "temperature"),
    ("hi", ["base"], ("own", 12, float("nan"), 1, 0), "temperature"),
    ("hi", ["base"], ("own", 12, "hot", 1, 0), "temperature"),
    ("hi", ["base"], ("own", 12, 1, 0, 0), "top_p"),
    ("hi", ["base"], ("own", 12, 1, 1, None), "seed"),
]


@pytest.mark.parametrize(("prompt", "variants", "options", "words"), BAD)
def test_bad_input_is_a_sentence_and_the_app_goes_on(handlers, prompt, variants, options, words):
    *_, last = run(handlers, prompt, variants, *options)
    assert not last.running
    assert words in last.answers
    assert 'role="alert"' in last.answers
    assert "Traceback" not in last.answers
    *_, after = run(handlers, "hi", ["base"], *GREEDY)
    assert after.update["base"].finish_reason in ("eos", "length")


WRONG = [
    ({"temperature": -1}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"seed": -1}, "seed"),
    ({"history": [{"prompt": "a", "answers": {"base": "b", "bitune": "c"}}], "earlier": "mine"}, "mine"),
    ({"what_ifs": {"x": {"of": "bitune", "keys": [0.5], "values": [0.5]}}, "variants": ["x"]}, "needs 4 ratios"),
    ({"what_ifs": {"base": {"of": "bitune", "keys": [0.5] * 4, "values": [0.5] * 4}}}, "already there"),
    ({"template": "mine"}, "mine"),
]


@pytest.mark.parametrize(("fields", "words"), WRONG)
def test_whatever_is_wrong_is_found_before_a_place_is_taken(handlers, fields, words):
    with pytest.raises(BituneError, match=words):
        handlers.work(**{"prompt": "hello", "variants": ["base", "bitune"], **fields})


def test_what_nobody_foresaw_goes_to_the_log_and_not_to_the_page(handlers, monkeypatch, caplog):
    def broken(*args, **options):
        raise RuntimeError("secret <b>detail</b>")

    monkeypatch.setattr(handlers.engine, "stream", broken)
    *_, last = run(handlers, "hi", ["base"], *GREEDY)
    assert not last.running
    assert "RuntimeError" in last.answers
    assert "secret" not in last.answers
    assert "secret" in caplog.text


def test_closing_a_run_frees_the_model(handlers):
    running = handlers.run("hello", ["base"], max_new_tokens=400)
    assert "Reading the prompt" in next(running).answers
    next(running)
    running.close()
    *_, last = run(handlers, "hi", ["base"], *GREEDY)
    assert last.update.done


def test_a_run_has_an_id_of_its_own_from_its_end_on(handlers):
    shown = list(run(handlers, "hello", ["bitune"], *GREEDY))
    written = [screen.latest_run.id for screen in shown if screen.latest_run]
    assert written[:-1] == [None] * (len(written) - 1)
    assert re.fullmatch("[0-9a-f]{32}", written[-1])
    *_, again = run(handlers, "hello", ["bitune"], *GREEDY)
    assert again.latest_run.id != written[-1], "the same answers, but another run"
    assert handlers.finish(replace(shown[-1], running=True)).latest_run.id, "one that was stopped has one too"


def test_a_cancelled_run_keeps_its_answers(handlers):
    shown = run(handlers, "hello", ["base", "bitune"], *GREEDY)
    update = shown[-1].update
    cut = replace(
        update, done=False, completions={name: replace(c, finish_reason=None) for name, c in update.completions.items()}
    )
    settled = handlers.finish(Screen("", running=True, update=cut, request=shown[-1].request, views=shown[-1].views))
    assert not settled.running
    assert {c.finish_reason for c in settled.update.completions.values()} == {"cancelled"}
    assert settled.answers.count("by you") == 2
    assert settled.prompts


def test_a_run_stopped_before_its_first_token_says_so(handlers):
    waiting = handlers.announce(["base", "ghost"])
    assert "Waiting for the model" in waiting.answers
    assert waiting.running
    settled = handlers.finish(waiting)
    assert not settled.running
    assert "before the first token" in settled.answers


def test_answers_for_programs_are_plain_json(handlers):
    answer = handlers.compare("hello", None, *GREEDY)
    assert json.loads(json.dumps(answer)) == answer, "nothing changes its type on the way"
    assert set(answer["completions"]) == {"base", "lora", "bitune"}
    fields = {"text", "tokens", "seconds_to_first_token", "tokens_per_second", "finish_reason", "from_memory"}
    assert all(set(completion) == fields for completion in answer["completions"].values())
    assert answer["prompts"]["base"] == TEMPLATE.format(prompt="hello")


def test_a_recording_is_shown_as_one(engine, tmp_path):
    recording = record(engine, EXAMPLES[0])
    file = tmp_path / "a.json"
    file.write_text(to_json(recording), encoding="utf-8")
    assert read(file) == recording
    screen = CompareHandlers(engine, {EXAMPLES[0].key: recording}).first_screen()
    assert "Recorded" in screen.answers
    assert "tiny-llama" in screen.answers
    assert re.search(r"on \d+ \w+ 20\d\d", screen.answers)
    assert screen.answers.count("<article") == 3
    assert not screen.running


def test_without_a_recording_words_stand_there(handlers):
    assert "Nothing has run yet" in handlers.first_screen().answers


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "update": 3}', '{"format": 1, "update": {}}']
)
def test_a_file_that_is_no_recording_is_refused(tmp_path, content):
    file = tmp_path / "a.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="a.json is not a recording"):
        read(file)


def test_a_recording_of_bytes_and_one_that_is_a_folder_are_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xff{}")
    (tmp_path / "b.json").mkdir()
    for name, words in (("a.json", "not a recording"), ("b.json", "is a folder, not a file")):
        with pytest.raises(DataError, match=words):
            read(tmp_path / name)


@pytest.mark.parametrize("table", ["completions", "prompts", "prompt_tokens"])
def test_a_recording_whose_tables_are_of_other_variants_is_refused(engine, tmp_path, table):
    plain = json.loads(to_json(record(engine, EXAMPLES[0])))
    del plain["update"][table]["lora"]
    (tmp_path / "a.json").write_text(json.dumps(plain), encoding="utf-8")
    with pytest.raises(DataError, match="same variants"):
        read(tmp_path / "a.json")


def test_recordings_are_found_by_their_example(engine, tmp_path):
    recording = record(engine, EXAMPLES[1])
    path_of(EXAMPLES[1], tmp_path).write_text(to_json(recording), encoding="utf-8")
    assert load_all(tmp_path) == {EXAMPLES[1].key: recording}


def test_every_recording_of_the_project_can_be_read():
    recorded = {path.stem for path in FOLDER.glob("*.json")}
    assert recorded == {*load_all(), "attention"}, "each belongs to an example, but for the map of Attention"
