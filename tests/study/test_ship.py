"""Checkpoints of the study as they are shipped, and their model cards."""

import re
import shutil
from dataclasses import replace

from bitune import BituneModel
from study.plan import SETTINGS
from study.run import measure
from study.ship import cards, ship
from tests.study.small import METHODS, SMALL, result

_INTERVAL = re.compile(r"(?<=\()(?:95 % interval )?[-+.\d]+ to [-+.\d]+(?=[,)])")


def test_a_shipped_checkpoint_answers_as_the_run_did(study, tmp_path, monkeypatch):
    monkeypatch.setitem(SETTINGS, "choices", SMALL)
    ship(METHODS[1], study.state, tmp_path / "shipped", study.results)
    model = BituneModel.from_pretrained(tmp_path / "shipped", study.base)
    assert measure(study, SMALL, model.variant, model.manager) == result(study, METHODS[1])["measured"]
    assert model.bitune_config.training["run"] == METHODS[1].name
    assert METHODS[1].name in model.card and "2 seeds" in model.card
    assert "--limit 6 " in model.card and model.card.count("--leave-out a.train.jsonl") == len(SMALL.limits)
    assert "2 adapters of rank 2, 8 mixing coefficients" in model.card and "theta's 0.001" in model.card
    assert len(model.log.splitlines()) == len(result(study, METHODS[1])["log"])
    model.release()


def test_cards_of_shipped_checkpoints_are_what_the_results_say(study, tmp_path, monkeypatch):
    """`python -m study table` writes them; a run that came later changes them."""
    monkeypatch.setitem(SETTINGS, "choices", SMALL)
    copy = tmp_path / "results"
    copy.mkdir()
    later = study.file(replace(METHODS[1], seed=1))
    for file in study.results.glob("*.json"):
        if file != later:
            shutil.copy(file, copy)
    shipped = tmp_path / "shipped" / "one"
    ship(METHODS[1], study.state, shipped, copy)
    assert cards(tmp_path / "shipped", copy) == {shipped / "README.md": (shipped / "README.md").read_text()}
    shutil.copy(later, copy)
    (text,) = cards(tmp_path / "shipped", copy).values()
    assert "2 seeds" in text and "2 seeds" not in (shipped / "README.md").read_text()


def test_the_cards_here_are_up_to_date():
    written = cards()
    assert len(written) >= 2
    for file, text in written.items():  # but for the intervals: numpy may draw otherwise in another version
        assert _INTERVAL.sub("", file.read_text(encoding="utf-8")) == _INTERVAL.sub("", text)
