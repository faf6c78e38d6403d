"""Why answers part: every number beside plain forwards of transformers and PEFT in float64; going on from any beginning."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import DynamicCache

from bitune import Base, ConfigError, Engine, MixingRatios, PromptError, PromptPass, Turn, UnknownNameError, Variant
from bitune.inference import parting
from bitune.inference.parting import go_on, part
from bitune.model import likelihoods
from bitune.modeling.interface import cache_input
from bitune.schema.conversation import EARLIER
from bitune.schema.parting import parting_place
from bitune.schema.variants import WhatIf
from tests.closeness import assert_apart, assert_close
from tests.tiny import END, FAMILIES, VOCABULARY, WINDOW, bitune_on, tiny_model, tiny_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")  # PeftModel asks the base for it
PROMPT = "Which way does it read?"
TEMPLATE = "Q: {prompt}\nA:"
METHODS = {"bitune": "lora", "lora": "lora", "dora": "dora"}  # name -> kind of adapter
WHAT_IF = {"keys only": WhatIf("bitune", MixingRatios((1.0, 0.5, 0.25, 0.0), (0.0,) * 4))}
WINDOWS = {"gemma3": {"full_attention": None, "sliding_attention": WINDOW}, "mistral": {"sliding_attention": WINDOW}}
# Two begin alike, one begins with another whole, one ended by itself and one was cut after the same tokens; two are the same.
ANSWERS = {
    "base": (72, 105, 33, 32, 72, 111),
    "bitune": (72, 105, 33, END),
    "lora": (72, 105, 33),
    "dora": (10, 200),
    "keys only": (72, 105, 33, END),
}


@dataclass
class Subject:
    """An engine in float64, and where its checkpoints lie."""

    family: str
    engine: Engine
    folder: object
    plain: dict = field(default_factory=dict)

    def of(self, **options):
        return part(self.engine, PROMPT, list(ANSWERS), ANSWERS, what_ifs=WHAT_IF, **options)


def subject_of(family: str, folder) -> Subject:
    base = Base(tiny_model(family).double(), tiny_tokenizer(), f"tiny-{family}", None, None)
    for seed, (name, kind) in enumerate(METHODS.items(), 1):
        template = TEMPLATE if name == "lora" else None
        model = bitune_on(base, "lora" if name == "lora" else "bitune", kind, seed, prompt_template=template)
        model.save_pretrained(folder / name)
        model.release()
    engine = Engine(base)
    for name in METHODS:
        engine.add_checkpoint(folder / name)
    return Subject(family, engine, folder)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return subject_of("llama", tmp_path_factory.mktemp("llama"))


def plain_model(subject: Subject, name: str):
    """The same base, built again, with the adapters of a checkpoint as PEFT itself loads them; the base alone for `base`."""
    if name not in subject.plain:
        subject.plain[name] = load_plain(subject, name)
    return subject.plain[name]


def load_plain(subject: Subject, name: str):
    model = tiny_model(subject.family).double()
    if name == "base":
        return model
    folder = subject.folder / name
    model = PeftModel.from_pretrained(model, folder / "causal", adapter_name="causal")
    if (folder / "bidirectional").exists():
        model.load_adapter(folder / "bidirectional", adapter_name="bidirectional")
    return model.eval()


def mask_of(family: str, attention: str, before: int, tokens: int):
    """Which of all tokens each of the last `tokens` may see, written down."""
    query, key = torch.arange(before, before + tokens)[:, None], torch.arange(before + tokens)[None]
    seen = key <= query if attention == "causal" else torch.ones(tokens, before + tokens, dtype=torch.bool)
    masks = {
        kind: (seen if window is None else seen & ((query - key).abs() < window))[None, None]
        for kind, window in WINDOWS.get(family, {"full_attention": None}).items()
    }
    return masks if len(masks) > 1 else next(iter(masks.values()))


@torch.no_grad()
def by_hand(subject: Subject, name: str, ids, answer) -> torch.Tensor:
    """log-probabilities [answer, vocabulary] by forwards of transformers alone, with a cache that forgets nothing."""
    what_if = WHAT_IF.get(name)
    model = plain_model(subject, what_if.of if what_if else name)
    variant = subject.engine.variants[what_if.of if what_if else name]
    mixing = what_if.mixing if what_if else variant.mixing

    def run(cache, tokens, adapter, attention):
        if adapter is not None:
            model.set_adapter(adapter)
        before = cache.get_seq_length()
        return model(
            input_ids=torch.tensor([tokens]),
            attention_mask=mask_of(subject.family, attention, before, len(tokens)),
            position_ids=torch.arange(before, before + len(tokens))[None],
            **cache_input(cache),
        ).logits[0]

    adapters = [None] if name == "base" else ["causal", "bidirectional"][: len(variant.passes)]
    caches = [DynamicCache() for _ in adapters]
    for cache, adapter, one in zip(caches, adapters, variant.passes, strict=True):
        run(cache, ids[:-1], adapter, one.attention)
    if mixing is not None:
        for index, (first, second) in enumerate(zip(caches[0].layers, caches[1].layers, strict=True)):
            keys, values = mixing.keys[index], mixing.values[index]
            first.keys = (1 - keys) * first.keys + keys * second.keys
            first.values = (1 - values) * first.values + values * second.values
    return run(caches[0], [ids[-1], *answer[:-1]], adapters[0], "causal").log_softmax(-1)


def ids_of(engine: Engine, **options):
    return engine.request(PROMPT, list(ANSWERS), what_ifs=WHAT_IF, **options).ids


def assert_as_by_hand(subject: Subject, found, ids) -> None:
    for whose, answer in ANSWERS.items():
        for name in ANSWERS:
            expected, scores = by_hand(subject, name, ids[name], answer), found.scores[whose][name]
            said = expected[torch.arange(len(answer)), list(answer)]
            assert_close(scores.log_probabilities, said.float().numpy(), f"{name} of the answer of {whose}", size=10)
            assert scores.ranks.tolist() == (expected > said[:, None]).sum(-1).tolist()
            best = expected.topk(8)
            assert scores.top.tolist() == best.indices.tolist()
            assert_close(scores.top_log_probabilities, best.values.float().numpy(), size=10)
            assert scores.sum == pytest.approx(float(said.sum()), abs=1e-4)
            assert scores.per_token == pytest.approx(float(said.mean()), abs=1e-4)


@pytest.mark.parametrize("template", ["own", "chat", "none"])
def test_every_variant_on_every_answer_is_as_plain_forwards_have_it(llama, template):
    ids = ids_of(llama.engine, template=template)
    found = llama.of(template=template)
    assert found.variants == tuple(ANSWERS)
    assert_as_by_hand(llama, found, ids)
    values = np.array([[of.sum for of in scores.values()] for scores in found.scores.values()])
    assert_apart(values[:, 0], values[:, 1], "every variant has its own opinion")
    if template == "own":
        assert ids["lora"] != ids["bitune"], "each read its own template"


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"llama"}))
def test_in_every_family(family, tmp_path):
    subject = subject_of(family, tmp_path)
    assert_as_by_hand(subject, subject.of(), ids_of(subject.engine))


def test_a_variant_of_ones_own_with_one_bidirectional_pass(llama):
    causal, _ = (one.adapter for one in llama.engine.variants["bitune"].passes)
    llama.engine.add_variant("naive", Variant((PromptPass(causal, "bidirectional"),), None, causal))
    try:
        (ids,) = llama.engine.request(PROMPT, ["naive"]).ids.values()
        found = part(llama.engine, PROMPT, ["naive"], {"naive": ANSWERS["base"]})
    finally:
        llama.engine.remove_variant("naive")
    model, cache = plain_model(llama, "bitune"), DynamicCache()
    model.set_adapter("causal")
    with torch.no_grad():
        whole = torch.ones(1, 1, len(ids) - 1, len(ids) - 1, dtype=torch.bool)
        model(input_ids=torch.tensor([ids[:-1]]), attention_mask=whole, **cache_input(cache))
        logits = model(input_ids=torch.tensor([[ids[-1], *ANSWERS["base"][:-1]]]), **cache_input(cache)).logits[0]
    said = logits.log_softmax(-1)[torch.arange(6), list(ANSWERS["base"])]
    assert_close(found.scores["naive"]["naive"].log_probabilities, said.float().numpy(), size=10)


def test_ends_of_answers_are_counted_as_they_were_said(llama):
    found = llama.of()
    assert found.ended == {"bitune", "keys only"}
    for name in ANSWERS:
        cut, ended = found.scores["lora"][name], found.scores["bitune"][name]
        assert len(ended.log_probabilities) == len(cut.log_probabilities) + 1, "the end token is a token of the answer"
        assert ended.sum == pytest.approx(cut.sum + float(ended.log_probabilities[-1]), abs=1e-5)
    assert found.texts[END] == "</s>" and found.texts[72] == "i"
    shown = {token for scores in found.scores.values() for one in scores.values() for token in one.top.ravel().tolist()}
    assert set(found.texts) == shown | {token for answer in ANSWERS.values() for token in answer}


@pytest.mark.parametrize(
    ("one", "other", "place"),
    [
        ((1, 2, 3), (1, 2, 3), None),
        ((1, 2, 3), (1, 2), None),
        ((1, 2), (1, 3), 1),
        ((1, 2, END), (1, 2, 4, 5), 2),
        ((5,), (6,), 0),
    ],
)
def test_where_two_answers_part(one, other, place):
    assert parting_place(one, other) == parting_place(other, one) == place


def test_places_by_name(llama):
    found = llama.of()
    assert found.place("base", "bitune") == 3
    assert found.place("base", "lora") is None, "one was cut where the other went on"
    assert found.place("bitune", "keys only") is None
    assert found.place("dora", "base") == 0


@pytest.mark.usefixtures("clear_choices")
@pytest.mark.parametrize("earlier", EARLIER)
def test_an_answer_is_the_likeliest_of_who_gave_it_in_a_conversation_too(llama, earlier):
    history = [Turn("And before?", {name: f" {name} said it." for name in ANSWERS})]
    options = {"what_ifs": WHAT_IF, "history": history, "earlier": earlier}
    *_, last = llama.engine.stream(PROMPT, list(ANSWERS), max_new_tokens=5, **options)
    answers = {name: completion.token_ids for name, completion in last.completions.items()}
    found = part(llama.engine, PROMPT, list(ANSWERS), answers, **options)
    for name, answer in answers.items():
        own = found.scores[name][name]
        assert own.ranks.tolist() == [0] * len(answer)
        assert own.top[:, 0].tolist() == list(answer)
    assert len(set(answers.values())) == len(answers)


def tokens_run(model, call) -> list[tuple[int, int]]:
    """Rows and tokens of each forward of the decoder during `call()`."""
    shapes = []
    hook = model.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    try:
        call()
    finally:
        hook.remove()
    return shapes


def test_after_the_answers_no_prompt_is_read_again(tmp_path):
    engine = subject_of("llama", tmp_path).engine
    engine.manager.passes.limit = 2**22
    names = ["base", "bitune", "lora"]
    *_, last = engine.stream(PROMPT, names, max_new_tokens=4, template="none")
    answers = {name: last[name].token_ids for name in names}
    ran = tokens_run(engine.base.model, lambda: part(engine, PROMPT, names, answers, template="none"))
    beginnings = {answer[:length] for answer in answers.values() for length in range(len(answer))}
    assert ran == [(3, len(beginnings))], "one forward a row, and what answers begin with alike is read once"
    ran = tokens_run(engine.base.model, lambda: [*go_on(engine, PROMPT, "bitune", (72, 105, 33), max_new_tokens=1)])
    assert ran[-2:] == [(1, 3), (1, 1)]


@pytest.mark.parametrize("most", [1, 5, 14])
def test_long_answers_are_read_in_several_turns(llama, most, monkeypatch):
    expected = llama.of()
    monkeypatch.setattr(parting, "TOKENS_A_TURN", most)
    found = llama.of()
    for whose in ANSWERS:
        for name in ANSWERS:
            one, other = expected.scores[whose][name], found.scores[whose][name]
            assert_close(one.log_probabilities, other.log_probabilities, size=10)
            assert one.top.tolist() == other.top.tolist()


def test_a_vocabulary_too_large_for_many_rows(llama, monkeypatch):
    assert parting._batches([6, 4, 3, 9, 1], 7) == [slice(0, 1), slice(1, 3), slice(3, 4), slice(4, 5)]
    monkeypatch.setattr(likelihoods, "LOGIT_BYTES", 4 * VOCABULARY * 7)
    assert likelihoods.tokens_at_once(llama.engine.manager) == 7
    assert llama.of().scores["base"]["lora"].ranks.shape == (6,)


# --- going on ---------------------------------------------------------------------------------------------------------


def last_of(session):
    *_, last = session
    return last


@pytest.mark.usefixtures("clear_choices")
@pytest.mark.parametrize("settings", [{}, {"temperature": 1.3, "top_p": 0.9, "seed": 5}])
def test_behind_its_own_beginning_a_variant_writes_what_it_wrote(llama, settings):
    options = {"what_ifs": WHAT_IF, **settings}
    whole = last_of(llama.engine.stream(PROMPT, list(ANSWERS), max_new_tokens=8, **options))
    for name, completion in whole.completions.items():
        ids = completion.token_ids
        left = len(ids) - 3
        again = last_of(go_on(llama.engine, PROMPT, name, ids[:3], max_new_tokens=left, **options))
        assert list(again.completions) == [name]
        assert again[name].token_ids == ids
        assert again[name].text == completion.text
        assert again[name].tokens == left, "only what is new is counted"
        assert again[name].finish_reason == completion.finish_reason


@pytest.mark.parametrize("name", ["base", "bitune", "lora", "keys only"])
def test_behind_any_beginning_it_is_greedy_by_plain_forwards(llama, name):
    begun, ids = (72, 105, 222), ids_of(llama.engine)[name]
    found = last_of(go_on(llama.engine, PROMPT, name, begun, max_new_tokens=3, what_ifs=WHAT_IF))
    answer = list(begun)
    while len(answer) < 6 and answer[-1] != END:
        answer.append(int(by_hand(llama, name, ids, [*answer, 0])[-1].argmax()))
    assert list(found[name].token_ids) == answer
    assert found.prompt_tokens == {name: len(ids)}


@pytest.mark.usefixtures("clear_choices")
@pytest.mark.parametrize("earlier", EARLIER)
def test_in_a_conversation_too(llama, earlier):
    history = [Turn("And before?", {name: f" {name} said it." for name in METHODS})]
    options = {"history": history, "earlier": earlier}
    whole = last_of(llama.engine.stream(PROMPT, list(METHODS), max_new_tokens=5, **options))
    for name in METHODS:
        ids = whole[name].token_ids
        again = last_of(go_on(llama.engine, PROMPT, name, ids[:2], max_new_tokens=3, **options))
        assert again[name].token_ids == ids


def test_behind_an_end_nothing_comes(llama):
    found = last_of(go_on(llama.engine, PROMPT, "lora", (72, END), max_new_tokens=3))
    assert (found["lora"].token_ids, found["lora"].text, found["lora"].tokens) == ((72, END), "i", 0)
    assert found["lora"].finish_reason == "eos"


def test_where_the_context_ends_nothing_comes_either(llama):
    found = last_of(go_on(llama.engine, "y" * 508, "base", (72, 73, 74, 75), template="none"))
    assert (found["base"].tokens, found["base"].finish_reason, found["base"].text) == (0, "length", "ijkl")


def test_going_on_can_be_stopped(llama):
    session = go_on(llama.engine, PROMPT, "base", (72,), max_new_tokens=400)
    session.cancel()
    assert last_of(session)["base"].finish_reason == "cancelled"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda engine: part(engine, PROMPT, ["base"], {"base": ()}), ConfigError, "without a token"),
        (lambda engine: part(engine, PROMPT, ["base"], {}), ConfigError, "without a token"),
        (lambda engine: part(engine, PROMPT, ["base"], {"base": (300,)}), ConfigError, "no token of this base"),
        (lambda engine: part(engine, PROMPT, ["bas"], {"base": (3,)}), UnknownNameError, "Did you mean 'base'"),
        (lambda engine: part(engine, PROMPT, ["base"], {"base": (3,) * 600}), PromptError, "the model reads 512"),
        (lambda engine: go_on(engine, PROMPT, "base", ()), ConfigError, "No token is given"),
        (lambda engine: go_on(engine, PROMPT, "base", (True,)), ConfigError, "no token of this base"),
        (lambda engine: go_on(engine, PROMPT, "lra", (3,)), UnknownNameError, "Did you mean 'lora'"),
        (lambda engine: go_on(engine, PROMPT, "base", (3,), max_new_tokens=0), ConfigError, "max_new_tokens"),
        (lambda engine: go_on(engine, PROMPT, "base", (3,) * 600), PromptError, "tokens and the model reads 512"),
    ],
)
def test_what_cannot_be_asked(llama, call, error, words):
    with pytest.raises(error, match=words):
        call(llama.engine)
