"""Every field of every endpoint with values of any type and size: an answer, or one sentence that repeats little and tells nothing of the machine.

The handlers are called as the frame calls them, without a server: what HTTP adds is in tests/app/guard.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.attention.handlers import AttentionHandlers
from app.attention.request import Link as AttentionLink
from app.compare.handlers import CompareHandlers
from app.compare.link import Link as CompareLink
from app.compare.request import CompareRequest
from app.evidence.handlers import EvidenceHandlers
from app.mixing.handlers import MixingHandlers
from app.sets.api import ForPrograms
from app.sharing.handlers import SharingHandlers
from app.sharing.links import START, encode
from app.ui.errors import sentence
from app.votes.ballot import Ballot
from app.votes.handlers import Voting
from app.votes.place import Kept
from app.votes.store import VoteStore
from app.why import layers_api
from app.why.api import WhyApi
from bitune.errors import BituneError
from tests.app.ui import visiting
from tests.browser.served import tiny_engine
from tests.mutations import settings, within

SECONDS = 2
LONGEST = 1000  # of a sentence
MACHINE = ("Traceback", 'File "', "/site-packages/", "/home/", "/root/", "/tmp/")
LAYERS = 4

NUMBERS = st.sampled_from([0, 1, -1, 2, 3.5, -0.0, 1e-320, 1e308, float("inf"), float("nan"), 2**63, -(2**63) - 1, 10**400, True])
TEXTS = st.sampled_from(
    [
        *(
            "",
            " ",
            "base",
            "bitune",
            "own",
            "chat",
            "none",
            "\ud800",
            "a\0b",
            "\u2028",
            "\u202eabc",
            "中" * 50,
            "x" * 5_000,
            "../../etc/passwd",
        ),
        *(
            "<script>alert(1)</script>",
            '"><img src=x onerror=alert(1)>',
            "{{7*7}}",
            "{0.__class__}",
            "%s%n",
            "file:///etc/passwd",
            "http://127.0.0.1",
        ),
        *("1e999", "NaN", "null", "__proto__", "<|im_start|>", "'; DROP TABLE votes;--", "javascript:alert(1)"),
    ]
) | st.text(max_size=30)
LEAVES = st.none() | st.booleans() | NUMBERS | TEXTS | st.integers()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12
)


def any_of(*good: object) -> st.SearchStrategy:
    """As a rule what the field is meant for, so that a case gets past its other fields; else anything."""
    return st.one_of(st.sampled_from(good), st.sampled_from(good), VALUES)


CURVE = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=LAYERS, max_size=LAYERS) | VALUES
WHAT_IFS = st.dictionaries(
    TEXTS, st.fixed_dictionaries({"of": any_of("bitune"), "keys": CURVE, "values": CURVE}) | VALUES, max_size=6
)
PROMPT, TEMPLATE, VARIANT = any_of("hello", "What do bees make?"), any_of("own", "none"), any_of("base", "bitune", "lora")
HISTORY = st.lists(
    st.fixed_dictionaries(
        {"prompt": PROMPT, "answers": st.dictionaries(VARIANT.filter(lambda name: isinstance(name, str)), TEXTS)}
    ),
    max_size=3,
)


RUN, MAP = "the run", "the map"  # stand for a run that can be judged, and for a map that was computed


def packed(state: dict) -> object:
    """A link to any state, where JSON and UTF-8 can hold it."""
    try:
        return encode(state)
    except (ValueError, BituneError):
        return None


VARIANTS, SOME_WHAT_IFS = st.none() | st.lists(VARIANT, max_size=4) | VALUES, st.none() | WHAT_IFS | VALUES
HOW = {
    "template": TEMPLATE,
    "max_new_tokens": any_of(1, 2),
    "temperature": any_of(0, 1.0),
    "top_p": any_of(1.0, 0.5),
    "seed": any_of(0, 1),
}
ASKED = {
    "prompt": PROMPT,
    **HOW,
    "what_ifs": SOME_WHAT_IFS,
    "history": st.none() | HISTORY | VALUES,
    "earlier": any_of("recompute", "alternating"),
}
FIELDS: Mapping[str, Mapping[str, st.SearchStrategy]] = {
    "compare": {**ASKED, "variants": VARIANTS},
    "parting": {**ASKED, "variants": VARIANTS},
    "go_on": {**ASKED, "variant": VARIANT, "begun": any_of([70], [70, 71]) | st.lists(NUMBERS, max_size=3)},
    "sets": {
        **HOW,
        "prompts": any_of(["hello"], [{"prompt": "hello", "answer": "honey"}], "hello\thoney") | st.lists(VALUES, max_size=3),
        "variants": VARIANTS,
        "samples": any_of(1, 2),
        "what_ifs": SOME_WHAT_IFS,
    },
    "vote": {
        "run": any_of(RUN),
        "choice": any_of("0", "1", "tie"),
        "reasons": any_of([], ["correct"]),
        "texts": any_of(True, False),
    },
    "attention": {
        "prompt": PROMPT,
        "variant": VARIANT,
        "layer": any_of(0, 1),
        "head": any_of(0, None),
        "answer": any_of("", "honey"),
        "template": TEMPLATE,
        "what_ifs": st.none() | WHAT_IFS | VALUES,
    },
    "layers": {
        "prompt": PROMPT,
        "variant": any_of("bitune"),
        "answer": any_of("honey"),
        "template": TEMPLATE,
        "what_ifs": st.none() | WHAT_IFS | VALUES,
    },
    "lens": {
        "prompt": PROMPT,
        "variants": st.lists(VARIANT, max_size=3) | VALUES,
        "answer": any_of("", "honey"),
        "position": any_of(0, 1),
        "template": TEMPLATE,
        "what_ifs": st.none() | WHAT_IFS | VALUES,
    },
    "mixing": {"checkpoints": st.none() | st.lists(VARIANT, max_size=3) | VALUES, "prompt": PROMPT, "template": TEMPLATE},
    "evidence": {"setting": VALUES},
    "picture": {
        "question": st.fixed_dictionaries({"key": any_of(MAP), "layer": any_of(0, 3), "head": any_of(0, None)}) | VALUES,
    },
    "link": {
        "fragment": st.dictionaries(st.sampled_from(["compare", "attention", "what_ifs", "tab"]), VALUES).map(packed)
        | st.text(max_size=20).map((START + "{}").format)
        | VALUES,
        "query": st.dictionaries(st.sampled_from(["prompt", "variants", "seed", "top_p", "template"]), TEXTS),
    },
    "saved run": {"content": VALUES | VALUES.map(lambda value: json.dumps(value))},
}


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory) -> Mapping[str, Callable[..., object]]:
    engine = tiny_engine(tmp_path_factory.mktemp("tiny"))
    compare, attention, mixing = CompareHandlers(engine, {}), AttentionHandlers(engine), MixingHandlers(engine)
    evidence, sharing = EvidenceHandlers(engine), SharingHandlers(engine)
    why, sets = WhyApi(compare, CompareRequest), ForPrograms(engine)
    voting = Voting(engine, Kept(VoteStore(tmp_path_factory.mktemp("votes") / "votes.sqlite3")), votes_per_hour=10**9)
    *_, last = visiting.run(attention, prompt="hello", variant="bitune", template="own", answer="", what_ifs=None)
    map_key = last.value["key"]

    def of_model(work: Callable, function: Callable) -> Callable[..., object]:
        def call(**fields: object) -> object:
            work(**fields)
            return function(**fields)

        return call

    def linked(fragment: object, query: Mapping[str, str]) -> None:
        """The state of the address, and each of its tabs."""
        state = sharing.linked(fragment, query) or {}
        for kind in (CompareLink, AttentionLink):
            for fields in filter(lambda fields: isinstance(fields, dict), state.values()):
                _, words = sharing.said(kind, fields)
                assert all(len(one) <= LONGEST for one in words)
        sharing.what_ifs(state.get("what_ifs", {}), {})

    def picture(question: object) -> dict[str, object]:
        real = isinstance(question, dict) and question.get("key") == MAP
        return attention.picture({**question, "key": map_key} if real else question)

    def planned(**fields: object) -> None:
        (begun,) = sets.begin(**fields)
        assert begun.batches

    def vote(run: object, **fields: object) -> None:
        """On a run of its own."""
        mine = uuid4().hex
        ballot = Ballot(mine, "hello", "own", {}, {"base": "a", "bitune": "b"}, blind=False)
        voting.vote(ballot, mine if run == RUN else run, visitor="v", **fields)

    return {
        "parting": of_model(why.parting_work, why.parting),
        "go_on": of_model(why.go_on_work, why.go_on),
        "sets": planned,
        "vote": vote,
        "compare": of_model(compare.work, compare.compare),
        "attention": of_model(attention.work, attention.attention),
        "layers": of_model(layers_api.work_of_layers(compare), layers_api.layers_function(compare)),
        "lens": of_model(layers_api.work_of_lens_call(compare), layers_api.lens_function(compare)),
        "mixing": of_model(mixing.work, mixing.answer),
        "evidence": evidence.answer,
        "picture": picture,
        "link": linked,
        "saved run": sharing.open_run,
    }


def explore(call: Callable[..., object], fields: Mapping[str, st.SearchStrategy], examples: int, caplog) -> Counter:
    """Ask `examples` times; how often there was an answer and a refusal."""
    counts: Counter = Counter()

    @settings(examples)
    @given(st.fixed_dictionaries(dict(fields)))
    def check(values):
        try:
            with within(SECONDS):
                call(**values)
            counts["answered"] += 1
        except BituneError as error:
            counts["refused"] += 1
            words = sentence(error)
            assert words and len(words) <= LONGEST and "\n" not in words, words
            assert not any(mark in words.replace("/etc/passwd", "") for mark in MACHINE), words
            words.encode("utf-8", "surrogatepass")

    with caplog.at_level(logging.ERROR):
        check()
    assert not caplog.records
    return counts


@pytest.mark.parametrize("name", FIELDS)
def test_anything_is_answered_or_refused_in_a_sentence(endpoints, name, caplog):
    counts = explore(endpoints[name], FIELDS[name], 100, caplog)
    assert counts["refused"]
    assert counts["answered"] or name in ("evidence", "saved run"), "what is always refused says nothing of what comes behind"


@pytest.mark.long
@pytest.mark.parametrize("name", FIELDS)
def test_ten_thousand_requests(endpoints, name, caplog):
    counts = explore(endpoints[name], FIELDS[name], 1_500, caplog)
    print(name, dict(counts))
    assert counts["refused"]
