"""Who may run, who waits and who is refused, on a clock of the test's own."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.limits import Limits
from app.ui.admission import LONG_SECONDS, Admission, Refused
from app.ui.pace import Pace, Work, spoken


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def tokens(seconds: float) -> Work:
    """What takes so long where a token takes a tenth of a second."""
    return Work(prompt_tokens=1, new_tokens=round(seconds * 10))


def open_to(running: int, waiting: int = 50, known: bool = True, **limits: int) -> tuple[Admission, Clock]:
    """An admission, and its clock; `known`: it has measured that a token written takes 0.1 s."""
    clock = Clock()
    admission = Admission(
        Limits(running=running, waiting=waiting, **{"per_address": 100, "new_tokens": 10_000} | limits), (), clock
    )
    for _ in range(30 if known else 0):
        admission.pace.learn(Work(0, new_tokens=100), 10.0)
    return admission, clock


def ask(admission: Admission, seconds: float = 1.0, visitor: str = "v"):
    ticket = admission.enter(visitor)
    ticket.want(tokens(seconds))
    return ticket


def test_as_many_run_as_may_and_the_next_one_comes_when_one_leaves():
    admission, _ = open_to(2)
    first, second, third = (ask(admission) for _ in range(3))
    assert [ticket.admitted.done() for ticket in (first, second, third)] == [True, True, False]
    assert admission.counts == (2, 1)
    first.leave()
    first.leave()
    assert third.admitted.done()
    assert admission.counts == (2, 0)


def test_who_waits_sees_the_place_and_the_time_and_may_leave():
    admission, clock = open_to(1)
    running, waiting, last = ask(admission, 40), ask(admission, 5), ask(admission, 5)
    clock.now = 10
    assert "number 1 of 2 in the line, it starts in about 30 seconds" in waiting.words()
    assert "number 2 of 2 in the line, it starts in about 35 seconds" in last.words()
    waiting.leave()
    assert "number 1 of 1 in the line, it starts in about 30 seconds" in last.words()
    running.leave()
    assert last.admitted.done() and not waiting.admitted.done()


def test_a_short_request_passes_a_long_one_that_waits_but_not_for_ever():
    admission, clock = open_to(1)
    running = ask(admission, 5)
    long, short = ask(admission, 60), ask(admission, 2)
    assert "number 1 of 2" in short.words() and "number 2 of 2" in long.words()
    clock.now = 70.0
    late = ask(admission, 2)
    assert "number 3 of 3" in late.words(), "it came more than 60 seconds after the long one"
    running.leave()
    assert short.admitted.done()
    short.leave()
    assert long.admitted.done()


def test_one_of_several_places_is_kept_for_short_requests():
    admission, _ = open_to(3)
    longs = [ask(admission, 5 * LONG_SECONDS) for _ in range(3)]
    assert [ticket.admitted.done() for ticket in longs] == [True, True, False]
    short = ask(admission, 1)
    assert short.admitted.done()
    short.leave()
    assert not longs[2].admitted.done()
    longs[0].leave()
    assert longs[2].admitted.done()


def test_a_long_request_runs_soon_while_short_ones_keep_coming():
    """Whose place in the line has come takes the next place that is free, though only one is free at a time."""
    admission, clock = open_to(3)
    running = [ask(admission, 5) for _ in range(3)]
    long, others = ask(admission, 20), [ask(admission, 5)]
    while not long.admitted.done():
        assert clock.now < 60, "it waits for more than its own length behind those that came later"
        clock.now += 5
        running.pop(0).leave(ended=True)
        running += [ticket for ticket in others if ticket.admitted.done()]
        others = [ticket for ticket in others if not ticket.admitted.done()] + [ask(admission, 5)]
    assert clock.now >= 20 - 5


def test_the_time_in_the_line_begins_with_the_line():
    """What waited before for a model that was loading has not waited for others."""
    admission, clock = open_to(1, seconds_waiting=100)
    running, early = ask(admission, 50), admission.enter("v")
    clock.now = 95
    early.want(tokens(1))
    clock.now = 190
    assert "number 1 of 1" in early.words()
    clock.now = 196
    with pytest.raises(Refused, match="This has waited for"):
        early.words()
    running.leave()


def test_with_one_place_long_requests_take_it_too():
    admission, _ = open_to(1)
    assert ask(admission, 5 * LONG_SECONDS).admitted.done()


def test_a_full_line_refuses_at_once_and_says_when_to_come_back():
    admission, _ = open_to(1, waiting=2)
    ask(admission, 30), ask(admission, 10), ask(admission, 10)
    with pytest.raises(
        Refused, match="As many requests wait here as may, 2; come back when there is room again, that is in about 30 seconds"
    ):
        admission.enter("v")


def test_nobody_waits_for_longer_than_one_may():
    admission, clock = open_to(1, seconds_waiting=60)
    ask(admission, 100)
    with pytest.raises(Refused, match="would wait for 2 minutes, and nothing waits here for more than 60 seconds; come back"):
        ask(admission, 1)
    assert admission.counts == (1, 1), "until who asked has left"


def test_who_has_waited_as_long_as_one_may_is_refused():
    admission, clock = open_to(1, seconds_waiting=60)
    _, waiting = ask(admission, 50), ask(admission, 1)
    clock.now = 61
    with pytest.raises(Refused, match="has waited for 60 seconds, as long as anything waits here"):
        waiting.words()


def test_a_visitor_may_have_so_many_requests_running_or_waiting():
    admission, _ = open_to(1, per_address=2)
    ask(admission, 20, "one"), ask(admission, 30, "one")
    with pytest.raises(
        Refused, match="As many requests from your address run or wait here as one may have, 2; .*, that is in about 20 seconds"
    ):
        admission.enter("one")
    assert admission.enter("another")


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (Work(3000), "3,000 tokens to read; this page allows at most 2,048"),
        (Work(1, new_tokens=600), "600 new tokens; this page allows at most 512"),
        (Work(1, variants=40), "40 variants at once; this page allows at most 12"),
    ],
)
def test_more_than_a_request_may_ask_for_is_refused(work, words):
    admission = Admission(Limits())
    with pytest.raises(Refused, match=re.escape(words)):
        admission.enter("v").want(work)


def test_nothing_is_estimated_before_anything_was_measured():
    admission, clock = open_to(1, waiting=1, known=False)
    first, second = ask(admission, 1), ask(admission, 1)
    assert "nobody knows yet how long that takes" in second.words()
    with pytest.raises(Refused, match="nobody knows yet how long that takes"):
        admission.enter("v")
    clock.now = 4.0
    first.leave(ended=True)
    clock.now = 5.0
    assert "it starts in about 3 seconds" in ask_third(admission).words()


def ask_third(admission: Admission):
    ticket = admission.enter("v")
    ticket.want(tokens(1))
    return ticket


def test_a_ticket_whose_work_is_not_known_yet_counts_but_holds_up_nobody():
    admission, _ = open_to(1, waiting=1)
    loading = admission.enter("v")
    with pytest.raises(Refused):
        admission.enter("v")
    loading.want(tokens(1))
    assert loading.admitted.done()


def test_time_is_shared_by_those_that_run_and_only_ends_are_learned_from():
    admission, clock = open_to(2, known=False)
    one, other = ask(admission, 1), ask(admission, 1)
    clock.now = 10.0
    one.leave(ended=True)
    assert one.seconds == 5.0
    clock.now = 20.0
    other.leave()
    assert other.seconds == 15.0
    assert admission.pace.seconds(tokens(1)) == pytest.approx(5.0, rel=0.05)


def test_the_pace_tells_reading_from_writing_and_follows_the_machine():
    pace = Pace()
    assert pace.seconds(Work(100)) is None
    works = [Work(300, 3, 10, 1), Work(20, 2, 400, 3), Work(80, 4, 64, 3), Work(700, 1)]
    for slower in (1.0, 3.0):
        for work in works * 20:
            pace.learn(work, slower * (0.004 * work.reading + 0.03 * work.writing))
        for work in works:
            assert pace.seconds(work) == pytest.approx(slower * (0.004 * work.reading + 0.03 * work.writing), rel=0.1)


@pytest.mark.parametrize("work", [Work(100), Work(0, new_tokens=50), Work(77, 4, 64, 3)])
def test_requests_that_are_all_alike_foretell_the_next_one(work):
    pace = Pace()
    for _ in range(5):
        pace.learn(work, 7.0)
    assert pace.seconds(work) == pytest.approx(7.0, rel=0.01)
    assert pace.seconds(Work(1, 1, 1, 1)) >= 0


def test_what_was_measured_gives_no_rate_below_nothing():
    pace = Pace()
    for _ in range(10):
        pace.learn(Work(100, new_tokens=10), 10.0)
        pace.learn(Work(1000, new_tokens=10), 1.0)
    assert pace.seconds(Work(5000)) >= 0 and pace.seconds(Work(0, new_tokens=100)) >= 0


@pytest.mark.parametrize(("seconds", "words"), [(0, "1 second"), (7.2, "8 seconds"), (31, "35 seconds"), (91, "2 minutes")])
def test_a_time_as_people_say_it(seconds, words):
    assert spoken(seconds) == words


def test_from_any_thread_never_more_run_than_may():
    admission, most = Admission(Limits(running=3, waiting=1000, per_address=1000)), []

    def visit(_):
        ticket = admission.enter("v")
        ticket.want(Work(1))
        ticket.admitted.result(30)
        most.append(admission.counts[0])
        ticket.leave(ended=True)

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(visit, range(300)))
    assert max(most) <= 3 and len(most) == 300
    assert admission.counts == (0, 0)


def test_what_has_begun_goes_on_where_the_line_is_full_and_long():
    admission, clock = open_to(1, waiting=2, per_address=1, seconds_waiting=10)
    set_of = admission.enter("v", goes_on=True)
    set_of.want(tokens(5))
    set_of.busy = True
    for visitor in ("a", "b"):
        ask(admission, 5, visitor)
    clock.now = 5
    set_of.over(ended=True)
    assert admission.counts == (1, 2), "the first of the others runs, and the set waits beside the second"
    for visitor, words in (("v", "from your address"), ("c", "As many requests wait here")):
        with pytest.raises(Refused, match=words):
            admission.enter(visitor)
    set_of.want(tokens(30))
    assert "number 2 of 2" in set_of.words()
    clock.now = 100
    assert "number 2 of 2" in set_of.words(), "longer than anything may wait that has not begun"
    admission.close("The page ends.")
    with pytest.raises(Refused, match="The page ends"):
        set_of.words()


def test_the_first_part_is_refused_as_anything_is():
    admission, _ = open_to(1, seconds_waiting=10)
    ask(admission, 20)
    first = admission.enter("v", goes_on=True)
    with pytest.raises(Refused, match="would wait for"):
        first.want(tokens(1))


def test_what_goes_on_has_its_place_until_its_thread_has_ended_and_none_afterwards():
    admission, _ = open_to(1)
    set_of = admission.enter("v", goes_on=True)
    set_of.want(tokens(1))
    set_of.busy = True
    waiting = ask(admission)
    set_of.leave()
    assert admission.counts == (1, 1) and not waiting.admitted.done()
    set_of.over(ended=False)
    assert admission.counts == (1, 0) and waiting.admitted.done()
    set_of.leave()
    assert admission.counts == (1, 0)
