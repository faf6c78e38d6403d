"""What the scripts of components get."""

import json

from app.ui.pieces import as_text


def test_what_a_script_draws_is_json_that_every_browser_reads():
    value = {"text": "</script> é", "numbers": [1, 0.5, float("nan"), float("-inf")], "nothing": None, "pair": ("a", 1)}
    assert json.loads(as_text(value), parse_constant=lambda word: word) == {
        "text": "</script> é",
        "numbers": [1, 0.5, None, None],
        "nothing": None,
        "pair": ["a", 1],
    }
