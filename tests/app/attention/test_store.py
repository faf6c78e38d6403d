"""The store of attention maps under many threads: its sum is right, nothing is computed twice, and what fails can be tried again."""

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from app.attention import maps
from app.attention.request import AttentionRequest
from app.attention.store import FORGOTTEN, AttentionStore
from bitune.errors import ConfigError
from tests.app.attention.test_maps import made

REQUEST = AttentionRequest(prompt="hello", variant="bitune")
MAPS = made(3)  # of layer 0
ONE = maps.size(MAPS)
LAYERS = range(1, 30)


@pytest.fixture
def short_turns():
    """Threads change places as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("short_turns")
def test_many_visitors_open_layers_while_others_come():
    computed = Counter()

    def compute(request, layers):
        computed[id(request), *layers] += 1
        return MAPS

    store = AttentionStore(compute, max_bytes=40 * ONE)
    results = [store.add(AttentionRequest(prompt=str(i), variant="bitune"), MAPS) for i in range(4)]

    def visit(number: int) -> None:
        for layer in LAYERS:
            assert store.layer(results[number % 4], layer) is MAPS
            key = store.add(REQUEST, MAPS).key
            try:
                assert store.get(key).key == key
            except ConfigError as error:
                assert str(error) == FORGOTTEN  # the others have filled the store meanwhile

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(visit, range(12)))
    assert set(computed.values()) == {1}, "a layer is computed once, however many ask for it"
    assert len(computed) == 4 * len(LAYERS)
    kept = store.results.values()
    assert store.bytes == sum(result.bytes for result in kept) <= store.max_bytes
    for result in [*results, *kept]:
        assert result.bytes == (1 + len(result.layers)) * ONE


def test_who_asks_while_a_layer_is_computed_gets_the_same_maps():
    together = Barrier(2, timeout=10)

    def compute(request, layers):
        together.wait()
        return made(3)

    store = AttentionStore(compute)
    result = store.add(REQUEST, MAPS)
    with ThreadPoolExecutor(2) as threads:
        first, second = (threads.submit(store.layer, result, 5) for _ in range(2))
        together.wait()
        assert first.result() is second.result()


def test_a_layer_that_failed_is_computed_again():
    answers = iter([MemoryError("no room"), MAPS])

    def compute(request, layers):
        if isinstance(answer := next(answers), Exception):
            raise answer
        return answer

    store = AttentionStore(compute)
    result = store.add(REQUEST, MAPS)
    with pytest.raises(MemoryError):
        store.layer(result, 7)
    assert store.bytes == ONE
    assert store.layer(result, 7) is MAPS
    assert store.bytes == 2 * ONE


def test_a_result_forgotten_while_it_is_computed_is_not_counted():
    store = AttentionStore(lambda request, layers: store.add(request, MAPS) and MAPS, max_bytes=ONE)
    result = store.add(REQUEST, MAPS)
    assert store.layer(result, 3) is MAPS, "whoever asked is answered all the same"
    assert store.bytes == ONE
    assert len(store.results) == 1
    with pytest.raises(ConfigError, match="no longer kept"):
        store.get(result.key)


def test_the_result_used_last_stays():
    store = AttentionStore(lambda request, layers: MAPS, max_bytes=2 * ONE)
    first, _ = store.add(REQUEST, MAPS), store.add(REQUEST, MAPS)
    store.layer(first, 1)
    assert list(store.results) == [first.key]
    assert store.bytes == 2 * ONE
