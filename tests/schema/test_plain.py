"""What the room of plain values promises."""

import subprocess
import sys
from pathlib import Path

import bitune

FOLDER = Path(bitune.__file__).parent
MODULES = sorted(path.stem for path in (FOLDER / "schema").glob("*.py") if path.stem != "__init__")
HEAVY = {"torch", "transformers", "peft", "huggingface_hub", "safetensors", "gradio"}


def test_plain_values_need_no_torch():
    # The package's own __init__ gathers what is public from all rooms, so a bare package of that name stands in its place.
    lines = ["import sys, types", "package = types.ModuleType('bitune')", f"package.__path__ = [{str(FOLDER)!r}]"]
    lines += ["sys.modules['bitune'] = package", *(f"import bitune.schema.{name}" for name in MODULES)]
    lines += ["print(*sorted(name.partition('.')[0] for name in sys.modules))"]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "bitune" in loaded and len(MODULES) >= 3
    assert not loaded & HEAVY, loaded & HEAVY
