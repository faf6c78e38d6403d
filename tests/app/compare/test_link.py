"""What a link carries of Compare: a conversation whose last question is asked again, the reference, and what is looked at."""

import json
from dataclasses import replace

import pytest

from app.compare.conversation import GoingOn, can_go_on, follow_up, questions_in, story
from app.compare.handlers import NO_TURNS, CompareHandlers
from app.compare.link import Conversation, Link, conversation_of, with_names
from app.compare.link_tab import said
from app.sharing.links import encode
from app.ui.loading import Loading
from app.ui.validation import as_far_as_valid
from app.why.look import LookLink, Wish
from app.why.run import run_of
from app.why.tokens import TokenScores
from tests.app.ui import visiting
from tests.browser.served import tiny_engine

SAMPLING = {"max_new_tokens": 6, "temperature": 0, "top_p": 1, "seed": 0}
MINE = {"mine": {"of": "bitune", "keys": [0.5] * 4, "values": [0.5] * 4, "colour": 2}}
NAMES = ["base", "bitune", "mine"]
FORM = {"prompt": "Who?", "variants": NAMES, "template": "own", **SAMPLING, "reference": None, "wish": None}


@pytest.fixture(scope="module")
def handlers(tmp_path_factory):
    return CompareHandlers(tiny_engine(tmp_path_factory.mktemp("tiny")), {})


@pytest.fixture(scope="module")
def second(handlers):
    """The end of a second turn of two variants and a what-if."""
    *_, first = visiting.run(handlers, prompt="Who?", variants=NAMES, what_ifs=MINE, template="own", **SAMPLING)
    asked = {"question": "And why?", "kept": None, "earlier": "alternating", "what_ifs": MINE, **SAMPLING}
    return visiting.run(GoingOn(handlers, follow_up), shown=first, **asked)[-1]


def linked(handlers, screen):
    """The screen of somebody who opens the link of this one, and what is said."""
    fields = json.loads(json.dumps(conversation_of(screen.request)))
    return handlers.linked(Conversation.model_validate(fields), MINE, **SAMPLING)


def test_the_last_question_of_a_conversation_is_asked_again_and_answered_alike(handlers, second):
    screen, words = linked(handlers, second)
    assert words == [] and screen.request == second.request
    assert can_go_on(screen) and "Press Ask" in screen.answers
    assert story(screen) == story(second)
    assert questions_in(screen) == ["Who?", "And why?"]
    asked = {"question": "And why?", "kept": None, "earlier": "alternating", "what_ifs": MINE, **SAMPLING}
    *_, answered = visiting.run(GoingOn(handlers, follow_up), shown=screen, **asked)
    assert answered.texts == second.texts
    *_, edited = visiting.run(GoingOn(handlers, follow_up), shown=screen, **{**asked, "question": "Who else?", "kept": 0})
    assert edited.request.history == () and edited.request.prompt == "Who else?"


def test_a_variant_that_is_not_here_is_left_out_of_a_conversation(handlers, second):
    talk = Conversation.model_validate(conversation_of(second.request))
    screen, words = handlers.linked(talk, {}, **SAMPLING)
    assert (screen.request.variants, words) == (("base", "bitune"), ["Not loaded here: 'mine'."])
    silent = talk.model_copy(update={"variants": ["lora"]})
    assert handlers.linked(silent, {}, **SAMPLING) == (None, [NO_TURNS])
    early, _ = CompareHandlers(Loading(), {}).linked(talk, {}, **SAMPLING)
    assert early.request.variants == ("base",), "before the model is there"


def test_a_link_with_a_conversation_is_short(second):
    assert len(encode({"compare": {"conversation": conversation_of(second.request)}})) < 500


def test_what_is_looked_at_is_said_where_it_is_of_this_prompt(handlers, second):
    choices = {"layers_of": "bitune", "lens_of": "mine", "lens_token": 2}
    looked = {"panel": "tokens", "token_of": "bitune", "token": 3}
    below = {"latest": second, "run": run_of(second), **choices, "looked": looked}
    fields = said({**FORM, **below})
    assert fields["look"] == choices | looked and fields["conversation"]["question"] == "And why?"
    link, words = as_far_as_valid(Link, fields, "The page")
    assert words == [] and link.look.token == 3
    first = replace(second, request=replace(second.request, history=()))
    assert said({**FORM, **below, "latest": first})["look"] is None, "the form holds another prompt than the answers are to"
    wish = Wish("Who?", LookLink(lens_of="base"))
    nothing = {"latest": handlers.first_screen(), "run": None}
    assert said({**FORM, **nothing, "wish": wish})["look"] == {"lens_of": "base"}, "a link is passed on before anything ran"
    _, words = as_far_as_valid(Link, said({**FORM, **below, "looked": {"token": -1}}), "The page")
    assert "look.token=-1, which is below 0" in words[0]


def test_a_link_opens_a_step_of_the_next_run_of_its_prompt(handlers):
    wish = Wish("Who?", LookLink(token_of="bitune", token=1, lens_of="ghost"))
    options = {"variants": ["base", "bitune"], "template": "own", **SAMPLING}
    *_, screen = visiting.run(handlers, prompt="Who?", wish=wish, reference="bitune", **options)
    run = run_of(screen)
    assert (run.reference, run.look) == ("bitune", wish.look)
    scores = TokenScores(handlers)
    assert visiting.run(scores, run=run)[-1].value["opened"] == {"answer": 1, "place": 1}
    beyond = replace(run, look=LookLink(token_of="bitune", token=99))
    assert visiting.run(scores, run=beyond)[-1].value["opened"]["place"] != 99
    *_, other = visiting.run(handlers, prompt="Why?", wish=wish, **options)
    assert run_of(other).look == LookLink()


def test_names_that_are_taken_here_are_other_ones_everywhere(second):
    fields = {"conversation": conversation_of(second.request), "reference": "mine", "look": {"lens_of": "mine", "panel": "lens"}}
    renamed = with_names(fields, {"mine": "mine 2"})
    talk = Link.model_validate(renamed).conversation
    assert talk.variants == ["base", "bitune", "mine 2"] and list(talk.turns[0].answers) == talk.variants
    assert (renamed["reference"], renamed["look"]) == ("mine 2", {"lens_of": "mine 2", "panel": "lens"})
    odd = {"conversation": [1, {"answers": 3}], "look": None, "reference": 4}
    assert with_names(odd, {"mine": "x"}) == odd
