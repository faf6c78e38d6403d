"""The page on a tiny engine: real model, real checkpoints, real server; only small."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.compare.recorded import record
from app.limits import Limits
from app.models.base_handlers import BaseHandlers
from app.models.handlers import ModelsHandlers
from app.page import build_page
from app.server import serve
from app.settings import Settings
from app.ui.admission import Admission
from app.ui.examples import EXAMPLES
from app.ui.loading import Loading
from bitune import Engine
from tests.tiny import bitune_on, saved_base, tiny_base

TEMPLATE = "Question: {prompt}\nAnswer:"
METHODS = ("lora", "bitune")
MANY = Limits(running=3, per_address=200)  # a test is one address


def tiny_folders(folder: Path) -> Path:
    """`base`, `lora` and `bitune` in this folder, as a person would have them on disk."""
    base = saved_base(folder / "base")
    for seed, method in enumerate(METHODS):
        model = bitune_on(base, method, seed=seed, prompt_template=TEMPLATE)
        model.save_pretrained(folder / method)
        model.release()
    return folder


def tiny_engine(folder: Path) -> Engine:
    """An engine on a tiny base with a LoRA and a Bitune checkpoint."""
    tiny_folders(folder)
    engine = Engine(tiny_base())
    for method in METHODS:
        engine.add_checkpoint(folder / method)
    return engine


@contextmanager
def served(engine: Engine, limits: Limits = MANY, loads: bool = False, bases: bool = False, **study: object) -> Iterator[str]:
    """The address of the page on this engine, with the first example recorded.

    Args:
        loads: Whether checkpoints can be loaded from it.
        bases: Whether another base can be asked for as well; nobody is there who serves the page that follows.
        study: More arguments of build_page.
    """
    first, loading, admission = EXAMPLES[0], Loading.done(engine), Admission(limits)
    models = ModelsHandlers(loading, admission) if loads else None
    other = BaseHandlers(models, engine.base.id) if bases else None
    page = build_page(loading, {first.key: record(engine, first)}, admission=admission, models=models, bases=other, **study)
    try:
        yield serve(page, Settings(port=0, limits=limits))
    finally:
        page.close()
