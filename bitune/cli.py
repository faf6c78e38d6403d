"""python -m bitune generate | compare | train | evaluate | convert | inspect: the command line's flags.

What a command does is in commands.py, which imports torch: --help and what preflight.py refuses are answered before that.
The flags of the training settings come from their dataclass by a loop and not by `transformers.HfArgumentParser`, which takes two seconds
to import and shows every flag twice.
"""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from types import NoneType
from typing import get_args

from bitune import distributed
from bitune.base.local import EMBEDDED
from bitune.flags import Flags, number, one_of, status_of
from bitune.preflight import PREFLIGHT
from bitune.progress import doing
from bitune.schema.names import DTYPE_NAMES
from bitune.schema.peft_kinds import PEFT_KINDS, RANK
from bitune.schema.variants import METHODS
from bitune.training.settings import LR_SCHEDULER_TYPES, TrainingSettings

EVALUATE = (
    "Accuracy of the base and checkpoints, each with its 95 % bootstrap interval and paired differences. Of choices: acc, by "
    "log-likelihood; acc_norm, per character, as lm-eval has it; acc_token, per token. Of open answers: answer, by greedy "
    "generation. Under `accelerate launch -m bitune evaluate` on several devices."
)
COMPARE = (
    "Answer every prompt of a file with the base and checkpoints, several prompts in a batch, and say how often they agree, how long their "
    "answers are and, where the file has right answers, who is right, each with its 95 % interval. Each answer is the one that "
    "`python -m bitune generate` gives to its prompt."
)
# Flags of train that had other names once.
RENAMED = {
    "--accumulation": "--gradient-accumulation-steps",
    "--alpha": "--lora-alpha",
    "--alpha-start": "--initial-mixing-alpha",
    "--batch-size": "--per-device-train-batch-size",
    "--clip": "--max-grad-norm",
    "--epochs": "--num-train-epochs",
    "--evaluate-every": "--eval-steps",
    "--log-every": "--logging-steps",
    "--save-every": "--save-steps",
    "--schedule": "--lr-scheduler-type",
    "--warmup": "--warmup-ratio",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Errors of ours and the system's come out as one sentence on stderr, status 1."""
    options = parser().parse_args(arguments)
    return status_of("bitune", partial(_run, options))


def _run(options: argparse.Namespace) -> None:
    PREFLIGHT[options.command](options)
    with doing("Importing torch and transformers"):
        from bitune.commands import COMMANDS

    COMMANDS[options.command](options)
    distributed.leave()


def parser() -> argparse.ArgumentParser:
    """The command line as argparse knows it."""
    top = Flags(prog="python -m bitune", description="Run, compare, train, score and convert Bitune checkpoints.")
    commands = top.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    _add_generate(commands)
    _add_compare(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_convert(commands)
    _add_inspect(commands)
    return top


def _command(commands, name: str, text: str) -> argparse.ArgumentParser:
    escaped = text.replace("%", "%%")  # argparse fills in the help of a command, and leaves its description as it is
    return commands.add_parser(name, help=escaped, description=text)


class _Renamed(argparse.Action):
    """A flag that answers with its new name."""

    def __call__(self, parser, namespace, values, option_string=None):
        parser.exit(2, f"{parser.prog}: {option_string} is called {RENAMED[self.option_strings[0]]} now\n")


def _add_base(command: argparse.ArgumentParser) -> None:
    command.add_argument("--base", default=EMBEDDED.name, help="folder, Hub id, .gguf file or the embedded name")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    command.add_argument(
        "--dtype", default="auto", type=one_of(DTYPE_NAMES), help="auto, float32, bfloat16, float16; int8 on a CPU"
    )


def _add_generate(commands) -> None:
    command = _command(commands, "generate", "Answer a prompt with the base and checkpoints, from one batch.")
    _add_base(command)
    command.add_argument("prompt", help="what to answer")
    command.add_argument("--checkpoint", action="append", default=[], help="folder or Hub id; may be given again")
    _add_answers(command)


def _add_answers(command: argparse.ArgumentParser) -> None:
    """How prompts are answered."""
    command.add_argument(
        "--template",
        choices=("own", "chat", "none"),
        default="own",
        help="of the prompt: each checkpoint's own, the base's chat template, or none",
    )
    command.add_argument("--max-new-tokens", type=int, default=128, help="of an answer")
    command.add_argument("--temperature", type=float, default=0.0, help="of the drawing; 0 takes the most likely token")
    command.add_argument(
        "--top-p", type=float, default=1.0, help="draw among the likeliest tokens that have this probability together"
    )
    command.add_argument("--seed", type=int, default=0, help="of the drawing")


def _add_compare(commands) -> None:
    command = _command(commands, "compare", COMPARE)
    _add_base(command)
    command.add_argument(
        "file", metavar="FILE", help="JSON Lines, CSV or text with a prompt a line, with or without the right answer"
    )
    command.add_argument("--checkpoint", action="append", default=[], help="folder or Hub id; may be given again")
    _add_answers(command)
    command.add_argument(
        "--samples",
        type=number(int, 1),
        default=1,
        help="answers that each variant draws to each prompt, by the seeds from --seed on",
    )
    command.add_argument("--limit", type=number(int, 1), help="only the first so many prompts of the file; all if not given")
    command.add_argument("--batch-size", type=number(int, 1), default=8, help="prompts at a time")
    command.add_argument("--output", help="JSON Lines file for every prompt with its answers, written while they come")
    command.add_argument("--csv", help="the same at the end as CSV, for spreadsheets")
    command.add_argument(
        "--resume", action="store_true", help="go on with the prompts that OUTPUT does not hold yet, with the very same settings"
    )


def _add_train(commands) -> None:
    about = "Train a checkpoint. Under `accelerate launch -m bitune train` on several devices."
    command = _command(commands, "train", about)
    _add_base(command)
    _add_adapters(command.add_argument_group("adapters and mixing"))
    _add_settings(command.add_argument_group("training, as transformers' TrainingArguments name it"))
    command.add_argument("--data", action="append", required=True, help="JSON Lines file, or Hub id[:config]; may be given again")
    command.add_argument(
        "--output", required=True, help="folder of the checkpoint; training state goes to OUTPUT.state beside it"
    )
    command.add_argument(
        "--validation", type=number(float, 0), default=0.0, help="share or number of records held out of the data"
    )
    command.add_argument("--limit", type=number(int, 1), help="use only so many records, drawn by the seed")
    command.add_argument("--max-prompt-tokens", type=int, default=512, help="longer prompts lose their beginning")
    command.add_argument("--max-answer-tokens", type=int, default=256, help="records with longer answers are left out")
    command.add_argument("--template", help="prompt template kept in the checkpoint, with {prompt} in it, or 'chat'")
    command.add_argument(
        "--save-dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the saved adapters"
    )
    command.add_argument(
        "--resume", action="store_true", help="go on from the last state in OUTPUT.state, with the very same settings"
    )
    for flag in RENAMED:
        command.add_argument(flag, action=_Renamed, nargs="?", help=argparse.SUPPRESS, default=argparse.SUPPRESS)


def _add_adapters(group) -> None:
    group.add_argument("--method", choices=sorted(METHODS), default="bitune", help="passes over a prompt, and what is mixed")
    group.add_argument("--peft", choices=PEFT_KINDS, default="lora", help="kind of the adapters")
    group.add_argument("--rank", type=int, default=RANK, help="of LoRA and DoRA")
    group.add_argument("--lora-alpha", type=float, help="numerator of LoRA's scale; 2 x rank if not given")
    group.add_argument("--targets", nargs="+", help="names of linear layers; all of the decoder if not given")
    group.add_argument("--dropout", type=number(float, 0), default=0.0, help="of LoRA and DoRA")
    group.add_argument("--theta-init", type=float, default=0.01, help="scale of the mixing coefficients theta")
    group.add_argument(
        "--parameterization", choices=("abs", "relu"), default="abs", help="how a mixing ratio comes from its theta"
    )
    group.add_argument(
        "--initial-mixing-alpha", type=float, default=0.5, help="mixing ratio of the second pass before the first update"
    )


def _add_settings(group) -> None:
    for setting in fields(TrainingSettings):
        flag, text = f"--{setting.name.replace('_', '-')}", setting.metadata["help"]
        if setting.type is bool:
            group.add_argument(flag, action="store_true", help=text)
            continue
        (kind,) = set(get_args(setting.type) or (setting.type,)) - {NoneType}
        minimum = setting.metadata["minimum"]
        group.add_argument(
            flag,
            type=kind if minimum is None else number(kind, minimum),
            default=setting.default,
            choices=LR_SCHEDULER_TYPES if setting.name == "lr_scheduler_type" else None,
            help=text,
        )


def _add_evaluate(commands) -> None:
    command = _command(commands, "evaluate", EVALUATE)
    _add_base(command)
    command.add_argument("--checkpoint", action="append", default=[], help="folder or Hub id; may be given again")
    command.add_argument("--data", action="append", required=True, help="JSON Lines file, or Hub id[:config]; may be given again")
    command.add_argument("--split", default="test", help="of Hub data sets")
    command.add_argument("--limit", type=number(int, 1), help="score only the first so many records of each file")
    command.add_argument("--max-prompt-tokens", type=number(int, 1), help="leave out records with a longer prompt")
    command.add_argument(
        "--max-answer-tokens", type=number(int, 1), help="of the records so limited, leave out those with a longer right answer"
    )
    command.add_argument(
        "--leave-out",
        action="append",
        default=[],
        help="data that was trained on: its prompts are not scored; may be given again",
    )
    command.add_argument("--batch-size", type=number(int, 1), default=8, help="questions at a time")
    command.add_argument("--max-new-tokens", type=number(int, 1), default=128, help="of an open answer")
    command.add_argument("--output", help="JSON file for every item's prediction, the accuracies and their differences")


def _add_convert(commands) -> None:
    command = _command(commands, "convert", "Turn a folder of the authors' research code into a checkpoint folder.")
    _add_base(command)
    command.add_argument("reference", help="the authors' folder")
    command.add_argument("output", help="the folder to write")


def _add_inspect(commands) -> None:
    command = _command(commands, "inspect", "Say what is in a checkpoint, mixing ratios included.")
    command.add_argument("checkpoint", help="folder or Hub id")
