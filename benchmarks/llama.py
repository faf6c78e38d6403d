"""Five variants together against llama.cpp, which runs the same GGUF file five times, one answer after the other.

llama.cpp comes with the Node package node-llama-cpp, whose prebuilt program needs no compiler:

    npm install --prefix FOLDER --omit=optional --ignore-scripts node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1
    python -m benchmarks llama --llama FOLDER
"""

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.answers import PROMPT, answer
from benchmarks.bases import Prompts, open_engine
from benchmarks.measures import Measured, in_turn, ratio, timed
from benchmarks.setting import Setting, Skipped
from bitune.base.default import EMBEDDED, embedded_file

SCRIPT = Path(__file__).with_suffix(".mjs")


class Llama:
    """llama.cpp in a process of its own."""

    def __init__(self, process: subprocess.Popen):
        self._process = process
        self._read()

    def seconds(self, ids: Sequence[int], tokens: int, answers: int) -> float:
        """What so many answers of so many tokens take, one after the other."""
        self._process.stdin.write(json.dumps({"ids": list(ids), "tokens": tokens, "answers": answers}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> float | str:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"llama.cpp ended with status {self._process.wait()}; what it said stands above.")
        return json.loads(line)


@contextmanager
def started(folder: Path, file: Path, threads: int) -> Iterator[Llama]:
    """llama.cpp with this GGUF file; it ends with the block."""
    command = ["node", SCRIPT, folder, file, str(threads)]
    process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield Llama(process)
        finally:
            process.stdin.close()  # it ends after the last line


def five(setting: Setting) -> dict[str, Measured]:
    """The whole of five answers, prompt included."""
    if setting.llama is None:
        raise Skipped("No folder with node-llama-cpp is named; benchmarks/llama.py says how to install it and name it (--llama).")
    if shutil.which("node") is None:
        raise Skipped("There is no `node` on this machine; install Node 20 or newer.")
    if not (setting.llama / "node_modules" / "node-llama-cpp").is_dir():
        raise Skipped(f"node-llama-cpp is not installed in {setting.llama}; benchmarks/llama.py says how.")
    engine, tokens = open_engine(setting), setting.tokens(48)
    prompts, names = Prompts(engine.base.tokenizer), list(engine.variants)
    file = embedded_file() if setting.base == EMBEDDED.name else Path(setting.base)
    if file.suffix != ".gguf":
        raise Skipped(f"The base {setting.base} is no GGUF file, which is all that llama.cpp reads; name one with --base.")

    def new() -> str:
        return prompts.new(setting.tokens(PROMPT))

    with started(setting.llama.resolve(), file, setting.threads) as llama:
        works = {
            "llama.cpp": lambda: llama.seconds(engine.prompt_ids(new(), "base", template="none"), tokens, len(names)),
            "together": timed(lambda: answer(engine, new(), names, tokens)),
        }
        times = in_turn(works, setting.few)
    return {"llama": ratio(times["together"], times["llama.cpp"])}
