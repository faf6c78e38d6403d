"""Files that the page reads, damaged as people and disks do: each is shown as what it says, or refused in one sentence."""

import json
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given

from app.compare.handlers import CompareHandlers
from app.compare.recorded import load_all, path_of, record, to_json
from app.evidence.handlers import EvidenceHandlers, ItemQuery
from app.mixing import charts
from app.mixing.training_log import read_log
from app.ui.examples import EXAMPLES
from app.ui.variants import VariantView
from bitune.errors import DataError
from bitune.files import parse_lines
from tests.browser.served import tiny_engine
from tests.evidence_files import evidence, records, sums
from tests.mutations import changed_json, changed_lines, settings, within

SECONDS = 5
LAYERS = 3
Show = Callable[[bytes], None]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return tiny_engine(tmp_path_factory.mktemp("tiny"))


def shown_recording(engine, folder, content: bytes) -> None:
    """The first screen, encoded as it is sent; DataError where the recording is refused."""
    path_of(EXAMPLES[0], folder).write_bytes(content)
    screen = CompareHandlers(engine, load_all(folder)).first_screen()
    assert "<article" in screen.answers
    assert (screen.answers + screen.prompts).encode()


def shown_evidence(engine, folder, content: bytes) -> None:
    """Everything of the tab; DataError where the file is refused."""
    (folder / "choices.json").write_bytes(content)
    handlers = EvidenceHandlers(engine, folder)
    if handlers.problems:
        assert handlers.missing().encode()
        raise DataError(handlers.problems[0])
    ((_, setting),) = handlers.settings
    assert handlers.table(setting).encode()
    if (figure := handlers.whiskers(setting)) is not None:
        figure.to_json()
    query = handlers.first_query(setting)
    page = handlers.explore(ItemQuery(*vars(query).values()))
    assert (page.html + page.figures).encode()  # questions alone where their texts are there
    json.dumps(handlers.answer(setting), allow_nan=False)


def shown_log(content: bytes) -> None:
    """Both charts; DataError where the log is refused."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:  # refused with its checkpoint
        raise DataError("The log is not text.") from error
    log = read_log(parse_lines(text, "the log"), LAYERS)
    view = VariantView("a", "", ("causal",), 1)
    if log.mixed:
        charts.ratios_over_training(log).to_json()
    if (figure := charts.losses({"a": log}, {"a": view})) is not None:
        figure.to_json()
    json.dumps(log.as_json(), allow_nan=False)


def explore(show: Show, changed, examples: int) -> None:
    """Show `examples` damaged files; each is shown or refused in one sentence, and both happen."""
    counts = Counter()

    @settings(examples)
    @given(changed)
    def check(content):
        with within(SECONDS):
            try:
                show(content)
                counts["shown"] += 1
            except DataError as error:
                counts["refused"] += 1
                message = str(error)
                assert "\n" not in message and len(message) < 1500, message

    check()
    print(dict(counts))
    assert min(counts["shown"], counts["refused"]) > examples // 25, counts


@pytest.fixture(scope="module")
def subjects(engine, tmp_path_factory) -> dict[str, tuple]:
    """What is shown -> how, and a strategy of damaged files."""
    recordings, results = tmp_path_factory.mktemp("recordings"), tmp_path_factory.mktemp("results")
    recording = to_json(record(engine, EXAMPLES[0])).encode()
    study = json.dumps(evidence("choices", {"Quiz": records(5), "Sums": sums(4)})).encode()
    ratios = {"alpha_k": [0.5] * LAYERS, "alpha_v": [0.25] * LAYERS}
    log = [{"step": step, "loss": 1 / step, "learning_rate": 1e-3, **ratios} for step in (1, 2, 3)] + [
        {"step": 3, "eval_loss": 2.5}
    ]
    lines = "".join(json.dumps(line) + "\n" for line in log).encode()
    return {
        "recording": (lambda content: shown_recording(engine, recordings, content), changed_json(recording)),
        "evidence": (lambda content: shown_evidence(engine, results, content), changed_json(study)),
        "log": (shown_log, changed_lines(lines)),
    }


@pytest.mark.parametrize("name", ["recording", "evidence", "log"])
def test_damaged_files_of_the_page_are_shown_or_refused(subjects, name):
    explore(*subjects[name], 170)


@pytest.mark.long
@pytest.mark.parametrize("name", ["recording", "evidence", "log"])
def test_many_damaged_files_of_the_page(subjects, name):
    explore(*subjects[name], 1_700)
