"""The tab Evidence without a page: the table against its numbers, filters against a plain loop, texts by id, files that are not right."""

import json
import re
from dataclasses import replace
from html import unescape

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from markupsafe import escape
from pydantic import ValidationError

from app.evidence.charts import whiskers
from app.evidence.counted import counted, figures_of
from app.evidence.data import AVERAGE, Share, load_all
from app.evidence.handlers import EvidenceHandlers, ItemQuery, Link
from app.evidence.items import ALL, FILTERS, PAGE, counts, items_of, kept, page_of
from app.evidence.listing import listed
from app.evidence.table import MINUS, percent, signed, table, views_of
from app.evidence.texts import ItemTexts, as_asked, by_id
from app.settings import Settings
from app.ui.errors import sentence
from app.ui.plots import COLOURS
from app.ui.templates import problem
from bitune import Engine
from bitune.errors import BituneError, ConfigError
from bitune.evaluation.report import item_id
from tests.browser.served import served, tiny_engine
from tests.closeness import assert_close
from tests.evidence_files import VARIANTS, evidence, examples, records, sums, write_evidence, write_records
from tests.tiny import tiny_base

NASTY = "</script><img src=x onerror=alert(1)> ${1+1} {{7*7}}"
QUIZ, HARD = records(50), records(30, "hard")
TASKS = {"Quiz": QUIZ, "Hard-quiz": HARD}


@pytest.fixture(scope="module")
def engine():
    return Engine(tiny_base())


@pytest.fixture
def folder(tmp_path):
    return write_evidence(tmp_path / "evidence", evidence("choices", TASKS), evidence("arithmetic", {"Sums": sums(30)}))


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    write_records(tmp_path / "data" / "quiz.test.jsonl", QUIZ)
    write_records(tmp_path / "data" / "quiz.train.jsonl", records(3, "train"))
    return tmp_path / "data"


@pytest.fixture
def handlers(engine, folder, data):
    return EvidenceHandlers(engine, folder, [str(data)])


def plain(html: str) -> str:
    """Words of some HTML, as one line."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def rows_of(html: str) -> list[str]:
    return [plain(row) for row in re.findall(r"<tr.*?</tr>", html, re.DOTALL)]


def test_the_table_has_the_numbers_of_the_file(handlers):
    found = handlers.evidence["choices"]
    head, *rows = rows_of(handlers.table("choices"))
    assert head.startswith(
        "Variant Average, minus LoRA r16 Average Quiz 50 questions guessing 25.0 Hard-quiz 30 questions guessing 25.0"
    ), "the difference stands where a phone shows it"
    assert head.endswith("Trained parameters Seeds")
    for row, drawn in zip(found.rows, rows, strict=True):
        assert drawn.startswith(row.name)
        assert drawn.endswith(f"{row.parameters:,} {len(row.seeds) or '–'}")
        for share in row.accuracy.values():
            spread = "" if share.spread is None else f" ± {percent(share.spread)}"
            assert f"{percent(share.mean)} {percent(share.low)}–{percent(share.high)}{spread}" in drawn
        if row.name != "LoRA r16":
            share = row.minus[AVERAGE]
            assert f"{signed(share.mean)}" in drawn
            assert ("minus IA3" in drawn) == (row.name == "Bitune (IA3)")
            assert f"{signed(share.low)} to {signed(share.high)}" in drawn
    assert "min reference" in rows[2]
    assert "rank 16 · rate 0.001 · 9.1 min" in rows[2]


def drawn_whiskers(evidence) -> dict[str, dict]:
    """What the figure draws, by row: mean, low and high in points, its colour, what fills its dot, and its place from the top."""
    figure = whiskers(evidence, views_of(evidence))
    found = {}
    for trace in figure.data:
        bars = trace.error_x
        points = zip(trace.customdata, trace.x, bars.arrayminus, bars.array, trace.marker.color, trace.y, strict=True)
        for words, mean, down, up, fill, place in points:
            numbers = {"mean": mean, "low": mean - down, "high": mean + up}
            found[words.partition(":")[0]] = {**numbers, "colour": bars.color, "fill": fill, "place": place, "words": words}
    return found


def test_numbers_are_percent_with_one_decimal():
    assert (percent(0.3333), percent(1.0), percent(0.00049)) == ("33.3", "100.0", "0.0")
    assert (signed(0.041), signed(-0.0041), signed(0.0)) == ("+4.1", f"{MINUS}0.4", "+0.0")


@pytest.mark.parametrize(
    ("share", "clear"),
    [((0.04, 0.01, 0.07), True), ((-0.04, -0.07, -0.01), True), ((0.04, -0.01, 0.07), False), ((0.04, 0.0, 0.07), False)],
)
def test_an_interval_that_excludes_zero_is_marked_but_for_one_seed_alone(handlers, share, clear):
    found = handlers.evidence["choices"]
    row, reference = (
        replace(found.row("Bitune"), minus=dict.fromkeys(found.row("Bitune").minus, Share(*share))),
        found.row("LoRA r16"),
    )
    several, one, none = (0, 1, 2), (0,), ()  # the base has no seed
    for seeds, others, wanted in ((several, several, clear), (none, several, clear), (one, several, False), (none, one, False)):
        held = replace(found, rows=(replace(reference, seeds=others),))
        assert held.is_clear(replace(row, seeds=seeds, against=reference.name)) == wanted
    drawn = drawn_whiskers(replace(found, rows=(reference, replace(row, against=reference.name))))["Bitune"]
    assert (drawn["fill"] == drawn["colour"]) == clear
    assert drawn["fill"] in (drawn["colour"], COLOURS["paper"]), "an empty dot shows the paper"


def test_the_words_beside_a_whisker_say_on_which_side_of_zero_it_lies(folder):
    value = json.loads((folder / "choices.json").read_text())
    value["rows"][4]["seeds"], value["rows"][4]["predictions"] = (
        [0, 1],
        {k: v * 2 for k, v in value["rows"][4]["predictions"].items()},
    )
    for row, share in zip(value["rows"][3:5], ((0.05, 0.01, 0.09), (-0.05, -0.09, -0.01)), strict=True):
        row["minus"]["average"] = dict(zip(("mean", "low", "high"), share, strict=True))
    value["rows"][1]["minus"]["average"] = {"mean": 0.0, "low": -0.02, "high": 0.02}
    write_evidence(folder, value)
    found, _ = load_all(folder)
    rows = rows_of(table(found["choices"]))
    assert ["zero" in row for row in rows[2:6]] == [False, False, True, True]
    assert "above zero" in rows[4] and "below zero" in rows[5]


def test_whiskers_are_the_differences_of_the_file_in_points(handlers):
    found = handlers.evidence["choices"]
    drawn = drawn_whiskers(found)
    assert sorted(drawn, key=lambda name: drawn[name]["place"]) == [row.name for row in found.rows if row.minus]
    for name, whisker in drawn.items():
        share = found.row(name).minus[AVERAGE]
        for side in ("mean", "low", "high"):
            assert_close(whisker[side], 100 * getattr(share, side))
        assert whisker["words"] == f"{name}: {signed(share.mean)} points, {signed(share.low)} to {signed(share.high)}"


def test_whiskers_share_an_axis_that_holds_all_of_them_and_zero(handlers):
    for name in ("choices", "arithmetic"):
        found = handlers.evidence[name]
        figure = whiskers(found, views_of(found))
        low, high = figure.layout.xaxis.range
        ends = [whisker[side] for whisker in drawn_whiskers(found).values() for side in ("low", "high")]
        assert low < min(0, *ends) and max(0, *ends) < high
        assert figure.layout.xaxis.zeroline
        assert {trace.xaxis for trace in figure.data} == {None}, "one axis"
        assert figure.layout.xaxis.title.text.endswith("minus LoRA r16,<br>in points, with 95 % interval")
        assert len(figure.layout.yaxis.ticktext) == len(found.rows) - 1
    assert "Bitune (IA3)<br>minus IA3" in whiskers(found := handlers.evidence["choices"], views_of(found)).layout.yaxis.ticktext


def test_blue_reads_left_to_right_and_orange_otherwise_too(handlers):
    drawn = drawn_whiskers(handlers.evidence["choices"])
    colours = [whisker["colour"] for whisker in sorted(drawn.values(), key=lambda whisker: whisker["place"])]
    blue, orange = COLOURS["causal"], COLOURS["bidirectional"]
    assert colours == [blue, blue, orange, blue, blue, orange], "the rows but for the reference"


def test_one_task_needs_no_average(handlers):
    head, *_ = rows_of(handlers.table("arithmetic"))
    assert "Average" not in head
    assert "Accuracy, minus LoRA r16" in head
    assert [value for _, value in handlers.tasks("arithmetic")] == ["sums"]


def test_filters_agree_with_a_plain_loop(handlers):
    value = evidence("choices", TASKS)
    first, second = value["rows"][3], value["rows"][2]
    wanted = dict.fromkeys([*FILTERS.values(), ALL], 0)
    passed = []
    for task in value["tasks"]:
        for place, item in enumerate(task["items"]):
            sides = []
            for row in (first, second):
                seeds = row["predictions"][task["name"]]
                sides.append(sum(seed[place] == item["right"] for seed in seeds) > len(seeds) / 2)
            wanted[ALL] += 1
            wanted[FILTERS[tuple(sides)]] += 1
            if sides == [True, False]:
                passed.append((task["name"], place))
    found = handlers.evidence["choices"]
    items = items_of(found, found.row("Bitune"), found.row("LoRA r16"))
    assert counts(items) == wanted
    assert all(wanted.values())
    assert [(item.task.name, item.index) for item in kept(items, "first")] == passed
    labels = {name: label for label, name in handlers.filters(handlers.first_query("choices"))}
    assert labels["first"] == f"Bitune right, LoRA r16 wrong ({wanted['first']})"
    assert labels[ALL] == "all (80)"
    only = handlers.explore(ItemQuery("choices", "Bitune", "LoRA r16", "quiz", wanted=ALL))
    assert only.position == "1 to 10 of 50"
    assert only.html.count("<article") == PAGE


def test_open_answers_are_right_or_not(engine, folder, tmp_path):
    write_records(tmp_path / "sums.jsonl", sums(30))
    handlers = EvidenceHandlers(engine, folder, [str(tmp_path / "sums.jsonl")])
    found = handlers.evidence["arithmetic"]
    (task,) = found.tasks
    assert task.items[3].right == 1
    for row in found.rows:
        seeds = row.predictions["sums"]
        assert row.rightness(task)[3] == (2 * sum(seed[3] == 1 for seed in seeds) > len(seeds))
    shown = handlers.explore(ItemQuery("arithmetic", "Bitune", "LoRA r16", wanted=ALL))
    assert shown.html.count("✓") == shown.html.count("the right answer") == PAGE
    assert "another answer" in shown.html
    assert "chose the same" not in shown.figures, "who answers otherwise may answer anything"


def test_pages_end_where_the_items_end():
    items = list(range(45))
    assert page_of(items, 0) == (items[:10], 0, 5)
    assert page_of(items, 9) == (items[40:], 4, 5)
    assert page_of(items, -1)[1] == 0
    assert page_of([], 3) == ([], 0, 1)


def test_two_thirds_of_the_seeds_are_two_thirds(handlers):
    found = handlers.evidence["choices"]
    rows = [found.row("Bitune"), found.row("Base")]
    item = next(item for item in items_of(found, *rows) if sorted(rows[0].picks("quiz", item.index).values()) == [1, 2])
    html = listed([item], rows, views_of(found), by_id(examples(QUIZ)), 1)
    assert "Bitune 2/3" in plain(html)
    assert "Bitune 1/3" in plain(html)
    assert "Base 1/1" not in plain(html)


def test_texts_are_found_by_id(handlers):
    shown = handlers.explore(ItemQuery("choices", "Bitune", "LoRA r16", wanted=ALL))
    text = plain(shown.html)
    assert "Which number is 7 in quiz? the number 7 " in text
    assert f"the number {7 + 7 % 4} ✓ right" in text
    assert "Choice" not in text
    assert shown.html.count('data-to="compare"') == shown.html.count('data-to="attention"') == PAGE
    hard = handlers.explore(ItemQuery("choices", "Bitune", "LoRA r16", "hard_quiz", wanted=ALL))
    assert (hard.html, hard.position) == ("", "")
    assert "holds 0 of these 30 questions" in hard.note
    both = handlers.explore(ItemQuery("choices", "Bitune", "LoRA r16", wanted=ALL, page=9))
    assert (both.position, both.pages) == ("41 to 50 of 50", 5), "those whose text is known"
    assert "holds 50 of these 80 questions" in both.note


def test_without_texts_the_figures_stay_and_a_sentence_tells_how_to_get_the_texts(engine, folder):
    handlers = EvidenceHandlers(engine, folder)
    shown = handlers.explore(ItemQuery("choices", "Bitune", "LoRA r16", wanted=ALL))
    assert "python app.py --data FOLDER" in shown.note
    assert (shown.html, shown.position, shown.pages) == ("", "", 1), "neither ids nor numbers of choices"
    assert "Bitune right" in plain(shown.figures) and "Of 80 questions" in plain(shown.figures)
    assert {name: label for label, name in shown.filters}[ALL] == "all (80)"
    with pytest.raises(ConfigError, match="--data"):
        handlers.prompt_of(item_id(examples(QUIZ)[0].prompt))


def test_a_source_is_read_once_and_only_when_asked_for(data, tmp_path, monkeypatch):
    texts = ItemTexts([str(data), str(data / "quiz.train.jsonl")])
    assert texts.by_id is None
    assert len(texts.get()) == 53
    (data / "quiz.test.jsonl").unlink()
    assert len(texts.get()) == 53


def test_a_source_that_cannot_be_read_is_a_sentence_and_the_rest_works(engine, folder, data, tmp_path):
    (data / "broken.test.jsonl").write_text("{nonsense\n")
    (tmp_path / "empty").mkdir()
    sources = [str(tmp_path / "empty"), str(tmp_path / "gone.jsonl"), "~nobody-of-this-name/x", str(data)]
    shown = EvidenceHandlers(engine, folder, sources).explore(ItemQuery("choices", "Bitune", "LoRA r16", "quiz", wanted=ALL))
    assert "empty has no file *.test.jsonl" in shown.note
    assert "There is no file" in shown.note
    assert "broken.test.jsonl, line 1: not JSON" in shown.note
    assert "Which number is 7 in quiz?" in shown.html


def test_a_question_arrives_as_it_was_measured():
    (found,) = by_id(examples(QUIZ[:1])).values()
    assert found.question == QUIZ[0]["question"]
    bare = "Which number is 0 in quiz?\n\nChoices:\nthe number 0\nthe number 1\nthe number 2\nthe number 3"
    own = "Question: {prompt}\n\nAnswer:"
    assert as_asked(found.prompt, [own, own]) == (bare, "own")
    assert own.replace("{prompt}", bare) == found.prompt
    for templates in ([], [None], ["chat"], [own, None], ["Q: {prompt}\nA:"]):
        assert as_asked(found.prompt, templates) == (found.prompt, "none")
    (instruction,) = by_id(examples([{"task": "t0", "prompt": "Say it again: a", "answer": "a"}])).values()
    assert (instruction.question, instruction.choices) == ("Say it again: a", None)
    assert as_asked(instruction.prompt, [own]) == ("Say it again: a", "none")


def test_nothing_recorded_is_one_sentence(engine, tmp_path):
    handlers = EvidenceHandlers(engine, tmp_path / "nothing")
    assert "python -m study table" in handlers.missing()
    assert handlers.answer(None) == {}


def damaged(value: dict, change) -> dict:
    change(value)
    return value


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.pop("rows"),
        lambda value: value.update(rows=[]),
        lambda value: value.update(title=7),
        lambda value: value["tasks"][0].update(items=3),
        lambda value: value["tasks"][0]["items"][0].update(right="2"),
        lambda value: value["tasks"].append(5),
        lambda value: value["rows"][1]["predictions"]["quiz"][0].pop(),
        lambda value: value["rows"][1]["predictions"].update(quiz=[]),
        lambda value: value["rows"][1]["predictions"]["quiz"][0].__setitem__(0, [1]),
        lambda value: value["rows"][1]["accuracy"].pop("average"),
        lambda value: value["rows"][1]["accuracy"]["quiz"].update(mean=float("nan")),
        lambda value: value["rows"][1]["accuracy"]["quiz"].update(low="a"),
        lambda value: value["rows"][1].update(parameters=None),
        lambda value: value["rows"][1].update(seeds=[True]),
        lambda value: value["rows"][1].update(minus=[]),
    ],
)
def test_a_damaged_file_is_named_and_the_others_are_shown(engine, folder, change):
    write_evidence(folder, damaged(evidence("choices", TASKS), change))
    handlers = EvidenceHandlers(engine, folder)
    assert list(handlers.evidence) == ["arithmetic"]
    (problem,) = handlers.problems
    assert problem.startswith("choices.json is not a file of the study: ")
    assert "python -m study table" in problem
    assert escape(problem) in handlers.missing()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"null", b"[" * 100_000])
def test_a_file_of_anything_is_a_sentence(folder, content):
    (folder / "choices.json").write_bytes(content)
    found, (problem,) = load_all(folder)
    assert list(found) == ["arithmetic"]
    assert problem.startswith("choices.json is not a file of the study")


def test_nasty_text_is_text_everywhere(engine, tmp_path):
    quiz = [{"task": "quiz", "question": NASTY, "choices": [NASTY, "b"], "label": 0}, *records(5)]
    open_ones = [{"task": "sums", "question": NASTY, "answer": NASTY}, *sums(3)]
    write_records(tmp_path / "all.test.jsonl", [*quiz, *open_ones])
    variants = [*VARIANTS, (NASTY, "custom", NASTY, 8, 5, [0], 0.5)]
    value = evidence("choices", {NASTY: quiz, "Open": open_ones}, variants)
    value |= {"title": NASTY, "text": NASTY, "base": NASTY}
    handlers = EvidenceHandlers(engine, write_evidence(tmp_path / "evidence", value), [str(tmp_path)])
    page = handlers.explore(ItemQuery("choices", NASTY, "Bitune", wanted=ALL))
    with pytest.raises(BituneError) as refused:
        handlers.explore(ItemQuery(NASTY, NASTY, NASTY))
    for html in (handlers.table("choices"), page.html + page.note, problem(str(refused.value))):
        assert "<img" not in html and "<script" not in html and "</script" not in html
        assert escape(NASTY) in html
    figure = handlers.whiskers("choices")
    labels = [
        *figure.layout.yaxis.ticktext,
        figure.layout.xaxis.title.text,
        *(words for trace in figure.data for words in trace.customdata),
    ]
    assert any("&lt;img" in label for label in labels) and not any("<img" in label for label in labels)


@pytest.mark.parametrize("value", [None, 9, [], {}, "x", ("quiz",)])
def test_whatever_a_browser_sends_is_answered_with_a_sentence(handlers, value):
    good = ItemQuery("choices", "Bitune", "LoRA r16", wanted=ALL)
    for name in ("setting", "first", "second", "task", "topic", "wanted"):
        with pytest.raises(BituneError) as refused:
            handlers.explore(ItemQuery(**{**vars(good), name: value}))
        assert "failed inside" not in sentence(refused.value)
    assert handlers.explore(ItemQuery(**{**vars(good), "page": value})).page == (4 if value == 9 else 0), "the last page there is"
    for method in (handlers.table, handlers.whiskers):
        with pytest.raises(BituneError):
            method(value)
    with pytest.raises(ConfigError):
        handlers.prompt_of(value)


def test_rows_get_colours_that_tell_the_two_in_question_apart(handlers):
    views = views_of(handlers.evidence["choices"])
    assert {name: view.colour for name, view in views.items()} == {
        "Base": 0, "LoRA r8": 3, "LoRA r16": 2, "Bitune": 1, "Only causal": 4, "IA3": 5, "Bitune (IA3)": 3,
    }  # fmt: skip


def test_a_study_that_is_not_finished_is_shown_as_far_as_it_is(engine, tmp_path):
    value = evidence("choices", TASKS, VARIANTS[:1])
    handlers = EvidenceHandlers(engine, write_evidence(tmp_path / "evidence", value))
    assert " – " in rows_of(handlers.table("choices"))[1]
    assert handlers.whiskers("choices") is None
    assert "Of 80 questions" in handlers.explore(handlers.first_query("choices")).figures


def test_programs_get_plain_rows(engine, folder, tmp_path):
    with served(engine, results=folder) as address:
        client = Client(address, verbose=False, analytics_enabled=False)
        answer = client.predict(api_name="/evidence")
        assert list(answer) == ["choices", "arithmetic"]
        value = json.loads((folder / "choices.json").read_text())
        assert [row["name"] for row in answer["choices"]["rows"]] == [row["name"] for row in value["rows"]]
        for answered, row in zip(answer["choices"]["rows"], value["rows"], strict=True):
            assert answered["minus"] == (row["minus"] and {key: share | {"spread": None} for key, share in row["minus"].items()})
            assert {key: share["mean"] for key, share in answered["accuracy"].items()} == {
                key: share["mean"] for key, share in row["accuracy"].items()
            }
            assert "predictions" not in answered
        assert answer["choices"]["tasks"][0]["items"] == 50
        assert list(client.predict("arithmetic", api_name="/evidence")) == ["arithmetic"]
        with pytest.raises(AppError, match="no setting called 'ghost'"):
            client.predict("ghost", api_name="/evidence")


def test_data_comes_from_flags_or_the_environment():
    assert Settings.from_command_line([], {}).data == ()
    assert Settings.from_command_line([], {"BITUNE_DATA": "a,b:c"}).data == ("a", "b:c")
    assert Settings.from_command_line(["--data", "x", "--data", "y"], {"BITUNE_DATA": "a"}).data == ("x", "y")


def test_a_share_must_be_numbers():
    for values in ((True, 0, 1), (0.1, float("inf"), 1), ("a", 0, 1), (0.1, 0, 1, float("nan"))):
        with pytest.raises(ValidationError):
            Share(*values)


def own_study(count: int = 30) -> dict:
    """A setting whose questions came with their log-probabilities, topics and what made them, as `python -m study own` writes it."""
    value = evidence("own", {"Own": records(count)}, [v for v in VARIANTS if len(v[5]) < 2])
    value["reference"] = "IA3"
    for place, item in enumerate(value["tasks"][0]["items"]):
        item["topic"] = ("reading", "code")[place % 2]
    for row in value["rows"]:
        (chosen,) = row["predictions"]["own"]
        row["logprobs"] = {"own": [[[-1.0 if place == one else -3.0 for place in range(4)] for one in chosen]]}
    weights = {row["name"]: "0" * 16 for row in value["rows"] if row["method"] != "base"}
    value["made"] = {
        "recorded": "2026-03-04T05:06:07+00:00",
        "questions": "f" * 64,
        "base": "b" * 16,
        "checkpoints": weights,
        "device": "cpu",
        "dtype": "float32",
        "libraries": {"torch": "1.2.3"},
    }
    return value


@pytest.fixture
def own(engine, folder, tmp_path):
    """Handlers with a setting of our own besides the others; nobody gave any data."""
    write_records(tmp_path / "own.jsonl", records(30))
    return EvidenceHandlers(engine, write_evidence(folder, own_study()), questions=tmp_path / "own.jsonl")


def test_our_own_questions_come_first_and_can_be_read_without_any_data(own):
    assert [name for _, name in own.settings] == ["choices", "arithmetic", "own"]
    assert [name for _, name in own.question_sets] == ["own", "choices", "arithmetic"]
    assert own.first_query("own").wanted == ALL, "not those alone where Bitune is ahead"
    shown = own.explore(ItemQuery("own", "Bitune (IA3)", "IA3", wanted=ALL))
    assert shown.note == "" and shown.position == "1 to 10 of 30"
    assert "Which number is 7 in quiz?" in shown.html and "Choice 1" not in shown.html
    for row in own.evidence["own"].rows:
        assert row.name in plain(shown.html), "all variants that answered"
    words = plain(own.table("own"))
    assert "Computed on 4 March 2026 on cpu in float32, with torch 1.2.3" in words and "0" * 16 in words


def test_a_choice_says_what_it_has_of_the_probability_and_all_numbers_can_be_looked_up(own):
    found = own.evidence["own"]
    row = found.row("IA3")
    item = items_of(found, row, row)[0]
    html = listed([item], [row], views_of(found), own.texts.get(), 1)
    share = 100 / (1 + 3 * 2.718281828 ** (-2))
    assert f"IA3 {share:.0f} %" in plain(html)
    cells = re.findall(r"<td>([^<]*)</td>", html)
    assert sorted(cells) == [f"{MINUS}{value}" for value in ("1.00", "3.00", "3.00", "3.00")]


def test_topics_choose_among_the_questions_and_their_figures(own):
    assert own.topics("own") == [("All topics", ALL), ("reading", "reading"), ("code", "code")]
    assert own.topics("choices") == [("All topics", ALL)]
    every = [own.explore(ItemQuery("own", "IA3", "Base", wanted=ALL, topic=topic)) for topic in (ALL, "reading", "code")]
    assert [page.position.rpartition(" ")[2] for page in every] == ["30", "15", "15"]
    assert "Of 15 questions" in plain(every[1].figures)


def test_the_figures_of_two_variants_are_those_of_a_plain_loop(handlers):
    found = handlers.evidence["choices"]
    first, second = found.row("Bitune"), found.row("LoRA r16")
    items = items_of(found, first, second)
    figures = counted(items, first, second)
    assert figures.questions == len(items) == 80
    rights = [[item.first_right, item.second_right] for item in items]
    assert_close(figures.first.mean, sum(one for one, _ in rights) / 80)
    assert_close(figures.second.mean, sum(other for _, other in rights) / 80)
    assert_close(figures.ahead.mean, figures.first.mean - figures.second.mean)
    alike = 0
    for task in ("quiz", "hard_quiz"):
        for one in first.predictions[task]:
            for other in second.predictions[task]:
                alike += sum(a == b for a, b in zip(one, other, strict=True)) / 9
    assert_close(figures.same.mean, alike / 80)
    for share in (figures.first, figures.second, figures.ahead, figures.same):
        assert share.low < share.mean < share.high
    assert figures_of([], first, second) == ""


def test_other_weights_under_a_name_that_answered_are_told(folder, tmp_path):
    tiny = tiny_engine(tmp_path)
    value = own_study()
    value["made"]["checkpoints"] = {"lora": tiny.checkpoints["lora"].fingerprint, "bitune": "0" * 16, "gone": "1" * 16}
    write_records(tmp_path / "own.jsonl", records(30))
    handlers = EvidenceHandlers(tiny, write_evidence(folder, value), questions=tmp_path / "own.jsonl")
    note = plain(handlers.explore(handlers.first_query("own")).note)
    assert note.startswith("The weights of bitune in this page are not those")


def test_a_link_names_the_table_and_the_questions_and_an_older_one_has_a_name_for_both(own):
    new = Link(table="choices", setting="own", topic="code", wanted="both", page=1)
    assert own.linked_table(new) == ("choices", [])
    query, words = own.linked_query(new)
    assert (query.setting, query.topic, query.wanted, query.page, words) == ("own", "code", "both", 1, [])
    old = Link(setting="arithmetic")
    assert own.linked_table(old) == ("arithmetic", []) and own.linked_query(old)[0].setting == "arithmetic"
    assert own.linked_table(Link()) == (None, []) and own.linked_query(Link()) == (None, [])
    for link in (Link(table="ghost"), Link(setting="ghost")):
        assert "ghost" in own.linked_table(link)[1][0]
    assert "no-topic" in own.linked_query(Link(setting="own", topic="no-topic"))[1][0]


def test_choices_before_the_question_are_found_around_it():
    record = {"task": "t", "choices_first": True, "question": "Which?\nThis?", "choices": ["a", "b c"], "label": 1}
    (found,) = by_id(examples([record])).values()
    assert found.prompt == "Choices:\na\nb c\n\nQuestion: Which?\nThis?\n\nAnswer:"
    assert (found.question, found.choices) == ("Which?\nThis?", ("a", "b c"))
    assert as_asked(found.prompt, ["Question: {prompt}\n\nAnswer:"]) == (found.prompt, "none"), "read as it was measured"


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["rows"][0].update(logprobs={}),
        lambda value: value["rows"][0]["logprobs"]["own"][0].pop(),
        lambda value: value["rows"][0]["logprobs"]["own"].append([]),
        lambda value: value["rows"][0]["logprobs"]["own"][0].__setitem__(0, ["a"]),
        lambda value: value["made"].pop("questions"),
        lambda value: value["made"].update(recorded="2026-03-04T05:06:07"),
        lambda value: value["tasks"][0]["items"][0].update(topic=3),
    ],
)
def test_a_damaged_file_of_our_own_questions_is_named(engine, folder, change):
    write_evidence(folder, damaged(own_study(), change))
    handlers = EvidenceHandlers(engine, folder)
    assert list(handlers.evidence) == ["choices", "arithmetic"]
    assert handlers.problems[0].startswith("own.json is not a file of the study: ")


def test_log_probabilities_of_fewer_choices_than_there_are_break_nothing(engine, folder, tmp_path):
    value = own_study()
    value["rows"][0]["logprobs"]["own"][0] = [[-1.0]] * 30
    value["rows"][1]["logprobs"]["own"][0] = [[1e308, -1e308, 0.0, 0.0]] * 30
    write_records(tmp_path / "own.jsonl", records(30))
    handlers = EvidenceHandlers(engine, write_evidence(folder, value), questions=tmp_path / "own.jsonl")
    assert handlers.explore(ItemQuery("own", "Base", "IA3", wanted=ALL)).html.count("<article") == PAGE
