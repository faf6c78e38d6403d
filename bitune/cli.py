"""python -m bitune generate | train | evaluate | convert | inspect: the command line, and the only file that prints."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bitune import distributed
from bitune.errors import BituneError

EMBEDDED_NAME = "smollm2-135m-instruct"
EVALUATE = (
    "Accuracy of the base and checkpoints: of choices by log-likelihood, of open answers by greedy generation, each with its "
    "95 %% bootstrap interval and paired differences. Under `accelerate launch -m bitune evaluate` on several devices."
)
SCHEDULES = ("linear", "cosine", "constant", "constant_with_warmup")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Errors of ours and the system's come out as one sentence on stderr, status 1."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
        distributed.leave()
    except (BituneError, OSError) as error:
        print(f"bitune: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bitune: stopped", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line as argparse knows it."""
    top = argparse.ArgumentParser(prog="python -m bitune", description="Run, train, score and convert Bitune checkpoints.")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_generate(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_convert(commands)
    _add_inspect(commands)
    return top


def _command(commands, name: str, run, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    command.set_defaults(run=run)
    return command


def _number(kind: type, least: float):
    """An argparse type: a number of at least `least`."""

    def read(text: str):
        value = kind(text)
        if not value >= least:
            raise argparse.ArgumentTypeError(f"{text} is below {least}")
        return value

    read.__name__ = kind.__name__  # argparse shows it where `kind` cannot read the text
    return read


def _add_base(command: argparse.ArgumentParser, default: str | None = EMBEDDED_NAME) -> None:
    command.add_argument("--base", default=default, help="folder, Hub id, .gguf file or the embedded name")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    command.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16")


def _add_generate(commands) -> None:
    command = _command(commands, "generate", generate, "Answer a prompt with the base and checkpoints, from one batch.")
    _add_base(command)
    command.add_argument("prompt")
    command.add_argument("--checkpoint", action="append", default=[], help="folder or Hub id; may be given again")
    command.add_argument("--template", choices=("own", "chat", "none"), default="own")
    command.add_argument("--max-new-tokens", type=int, default=128)
    command.add_argument("--temperature", type=float, default=0.0)
    command.add_argument("--top-p", type=float, default=1.0)
    command.add_argument("--seed", type=int, default=0)


def _add_train(commands) -> None:
    from bitune.adapters.kinds import PEFT_KINDS, RANK
    from bitune.schema.variants import METHODS
    from bitune.training.trainer import TrainingSettings

    command = _command(
        commands, "train", train_command, "Train a checkpoint. Under `accelerate launch -m bitune train` on several devices."
    )
    default = TrainingSettings()
    _add_base(command)
    command.add_argument("--data", action="append", required=True, help="JSON Lines file, or Hub id[:config]; may be given again")
    command.add_argument(
        "--output", required=True, help="folder of the checkpoint; training state goes to OUTPUT.state beside it"
    )
    command.add_argument("--method", choices=sorted(METHODS), default="bitune")
    command.add_argument("--peft", choices=PEFT_KINDS, default="lora")
    command.add_argument("--rank", type=int, default=RANK)
    command.add_argument("--alpha", type=float, help="LoRA alpha; 2 x rank if not given")
    command.add_argument("--targets", nargs="+", help="names of linear layers; all of the decoder if not given")
    command.add_argument("--dropout", type=_number(float, 0), default=0.0)
    command.add_argument("--theta-init", type=float, default=0.01)
    command.add_argument("--parameterization", choices=("abs", "relu"), default="abs")
    command.add_argument("--epochs", type=float, default=default.epochs)
    command.add_argument("--max-steps", type=int, default=default.max_steps, help="updates; overrides --epochs if above 0")
    command.add_argument("--batch-size", type=int, default=default.batch_size)
    command.add_argument("--accumulation", type=int, default=default.accumulation)
    command.add_argument("--learning-rate", type=float, default=default.learning_rate)
    command.add_argument("--mixing-learning-rate", type=_number(float, 0), help="of theta; as --learning-rate if not given")
    command.add_argument("--alpha-start", type=float, default=0.5, help="ratio of the second pass before the first update")
    command.add_argument("--warmup", type=float, default=default.warmup, help="share of all updates")
    command.add_argument("--schedule", choices=SCHEDULES, default=default.schedule)
    command.add_argument("--weight-decay", type=_number(float, 0), default=default.weight_decay)
    command.add_argument("--clip", type=_number(float, 0), default=default.clip)
    command.add_argument("--bf16", action="store_true", help="bfloat16 base and autocast")
    command.add_argument("--seed", type=int, default=default.seed)
    command.add_argument("--log-every", type=int, default=default.log_every)
    command.add_argument("--save-every", type=int, default=default.save_every)
    command.add_argument("--evaluate-every", type=_number(int, 1), help="updates between losses on the held-out records")
    command.add_argument(
        "--validation", type=_number(float, 0), default=0.0, help="share or number of records held out of the data"
    )
    command.add_argument("--limit", type=_number(int, 1), help="use only so many records, drawn by the seed")
    command.add_argument("--max-prompt-tokens", type=int, default=512)
    command.add_argument("--max-answer-tokens", type=int, default=256)
    command.add_argument("--template", help="prompt template kept in the checkpoint, with {prompt} in it, or 'chat'")
    command.add_argument(
        "--save-dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the saved adapters"
    )
    command.add_argument("--resume", action="store_true", help="go on from the last state in OUTPUT.state")


def _add_evaluate(commands) -> None:
    command = _command(commands, "evaluate", evaluate, EVALUATE)
    _add_base(command)
    command.add_argument("--checkpoint", action="append", default=[], help="folder or Hub id; may be given again")
    command.add_argument("--data", action="append", required=True, help="JSON Lines file, or Hub id[:config]; may be given again")
    command.add_argument("--split", default="test", help="of Hub data sets")
    command.add_argument("--limit", type=_number(int, 1), help="score only the first so many records of each file")
    command.add_argument("--max-prompt-tokens", type=_number(int, 1), help="leave out records with a longer prompt")
    command.add_argument(
        "--max-answer-tokens", type=_number(int, 1), help="of the records so limited, leave out those with a longer right answer"
    )
    command.add_argument(
        "--leave-out",
        action="append",
        default=[],
        help="data that was trained on: its prompts are not scored; may be given again",
    )
    command.add_argument("--batch-size", type=_number(int, 1), default=8)
    command.add_argument("--max-new-tokens", type=_number(int, 1), default=128, help="of an open answer")
    command.add_argument("--output", help="JSON file for every item's prediction, the accuracies and their differences")


def _add_convert(commands) -> None:
    command = _command(commands, "convert", convert, "Turn a folder of the authors' research code into a checkpoint folder.")
    _add_base(command)
    command.add_argument("reference", help="the authors' folder")
    command.add_argument("output", help="the folder to write")


def _add_inspect(commands) -> None:
    command = _command(commands, "inspect", inspect, "Say what is in a checkpoint, mixing ratios included.")
    command.add_argument("checkpoint", help="folder or Hub id")


def generate(options: argparse.Namespace) -> None:
    """Stream nothing, print each variant's answer under its name."""
    engine = _engine(options)
    settings = {key: getattr(options, key) for key in ("template", "max_new_tokens", "temperature", "top_p", "seed")}
    for update in engine.stream(options.prompt, list(engine.variants), **settings):
        if update.done:
            for name, completion in update.completions.items():
                print(f"--- {name} ({completion.tokens} tokens, {completion.finish_reason})\n{completion.text}")


def train_command(options: argparse.Namespace) -> None:
    """Train, save, and say where."""
    import torch

    from bitune.adapters.kinds import new_peft_config
    from bitune.base.loading import load_base
    from bitune.checkpoints.folder import check_target
    from bitune.model.bitune_model import BituneModel
    from bitune.schema.config import MixingSettings
    from bitune.training.trainer import TrainingSettings, facts, train

    check_target(options.output)  # now, not after hours
    torch.manual_seed(options.seed)
    base = load_base(options.base, device=options.device, dtype="bfloat16" if options.bf16 else options.dtype)
    pairs, validation, data = _pairs(options, base.tokenizer)
    peft = new_peft_config(base.model, options.peft, options.rank, options.alpha, options.targets, options.dropout)
    mixing = MixingSettings(options.parameterization, options.theta_init)
    model = BituneModel.create(base, options.method, peft, mixing, options.template, options.alpha_start)
    settings = TrainingSettings(**{name: getattr(options, name) for name in TrainingSettings.__dataclass_fields__})
    figures = train(model, pairs, settings, f"{options.output}.state", validation, resume=options.resume)
    if distributed.is_main():
        kept = facts(model, settings, figures, data)
        model.record_training(kept if model.mixing is None else kept | {"alpha_start": options.alpha_start})
        model.save_pretrained(options.output, dtype=getattr(torch, options.save_dtype))
        print(f"saved {options.output}: {model.trainable_parameters():,} trained parameters, loss {figures['train_loss']:.4f}")


def _pairs(options: argparse.Namespace, tokenizer):
    """Token pairs to train on and to validate with, and facts about them."""
    from bitune.data.examples import load_examples, split_validation, tokenize_all
    from bitune.errors import ConfigError

    if tokenizer is None:
        raise ConfigError(
            f"The base {options.base!r} has no tokenizer, so text cannot be trained on; give a folder that has one."
        )
    examples = [example for source in options.data for example in load_examples(source)]
    if options.limit:
        examples, _ = split_validation(examples, max(0, len(examples) - options.limit), options.seed)
    part = options.validation if options.validation < 1 else int(options.validation)
    both = split_validation(examples, part, options.seed)
    train, held_out = (tokenize_all(part, tokenizer, options.max_prompt_tokens, options.max_answer_tokens) for part in both)
    if distributed.is_main():
        print(
            f"{len(train.pairs):,} examples to train on, {len(held_out.pairs):,} to validate; {train.cut:,} prompts cut, {train.dropped:,} dropped"
        )
    data = {
        "sources": [Path(source).name for source in options.data],
        "examples": len(train.pairs),
        "validation": len(held_out.pairs),
    }
    return train.pairs, held_out.pairs, data


def evaluate(options: argparse.Namespace) -> None:
    """Print accuracy and paired differences of every variant on every set; the report is written after each."""
    from tqdm import tqdm

    from bitune.errors import ConfigError
    from bitune.evaluation.report import average_lines, lines_of, write_reports
    from bitune.evaluation.report import evaluate as run

    output = Path(options.output) if options.output else None
    if output and (output.is_dir() or not output.parent.is_dir()):  # now, not after hours
        raise ConfigError(
            f"{str(output)!r} cannot be a report: it is a folder, or lies in none; name a file in a folder there is."
        )
    sets, seen = _sets(options), _seen(options)
    engine, reports = _engine(options), {}
    for source, examples in _fitting(sets, engine.base.tokenizer, options, seen).items():
        with tqdm(total=len(examples), desc=Path(source).name, disable=not distributed.is_main()) as bar:
            reports[source] = run(
                engine.manager,
                engine.variants,
                examples,
                engine.base.tokenizer,
                batch_size=options.batch_size,
                max_new_tokens=options.max_new_tokens,
                progress=bar.update,
            )
        if distributed.is_main():
            print(f"{Path(source).name}: {len(examples):,} of {len(sets[source]):,} items")
            print("\n".join(lines_of(Path(source).name, reports[source])))
            if output:
                write_reports(output, _settings(options, engine), reports)
    if distributed.is_main() and len(reports) > 1:
        print("\n".join(average_lines(list(reports.values()))))


def _sets(options: argparse.Namespace) -> dict[str, list]:
    """The examples of each --data: a file's, or those of a split of a Hub data set."""
    from bitune.data.examples import load_examples, split_of
    from bitune.errors import ConfigError

    twice = next((source for source in options.data if options.data.count(source) > 1), None)
    if twice:
        raise ConfigError(f"--data {twice} is given twice; give it once.")
    return {s: load_examples(s, split_of(s, options.split)) for s in options.data}


def _seen(options: argparse.Namespace) -> set[tuple[str, ...]]:
    """What the prompts of every --leave-out say: a file, or the part of a Hub data set that is for training."""
    from bitune.data.examples import content_of, load_examples

    return {content_of(example.prompt) for source in options.leave_out for example in load_examples(source)}


def _fitting(sets: dict[str, list], tokenizer, options: argparse.Namespace, seen: set[tuple[str, ...]]) -> dict[str, list]:
    """What of each set is scored; DataError, before anything is, where nothing is left or kinds are mixed."""
    from bitune.data.examples import to_measure
    from bitune.errors import DataError
    from bitune.evaluation.report import have_choices

    limits = (options.max_prompt_tokens, options.max_answer_tokens, options.limit)
    kept = {source: to_measure(examples, tokenizer, *limits, seen) for source, examples in sets.items()}
    for source, examples in kept.items():
        if not examples:
            given = [f"--max-{what}-tokens {most}" for what, most in zip(("prompt", "answer"), limits, strict=False) if most]
            given += [f"--leave-out {source}" for source in options.leave_out]
            raise DataError(f"{source} holds {len(sets[source])} records, and {' and '.join(given)} leave none; leave out less.")
        have_choices(examples, source)
    return kept


def _settings(options: argparse.Namespace, engine) -> dict[str, object]:
    """What a report says of how it was made."""
    import torch
    import transformers

    names = (
        "checkpoint",
        "split",
        "limit",
        "max_prompt_tokens",
        "max_answer_tokens",
        "leave_out",
        "max_new_tokens",
        "batch_size",
    )
    facts = engine.base_facts
    versions = {module.__name__: module.__version__ for module in (torch, transformers)}
    chosen = {name: getattr(options, name) for name in names}
    return {"base": facts.name, "device": facts.device, "dtype": facts.dtype, **chosen, "versions": versions}


def convert(options: argparse.Namespace) -> None:
    """Read the authors' folder on its base and save it in our format."""
    from bitune.base.loading import load_base
    from bitune.checkpoints.folder import check_target
    from bitune.model.bitune_model import BituneModel

    check_target(options.output)
    base = load_base(options.base, device=options.device, dtype=options.dtype)
    BituneModel.from_reference(options.reference, base=base).save_pretrained(options.output)
    print(f"saved {options.output}")


def inspect(options: argparse.Namespace) -> None:
    """Print config and mixing ratios; no base is loaded."""
    from bitune.checkpoints.folder import read, resolve_checkpoint
    from bitune.model.mixing import MixingCoefficients
    from bitune.schema.config import MixingSettings
    from bitune.schema.variants import name_of

    checkpoint = read(resolve_checkpoint(options.checkpoint))
    config = checkpoint.config
    print(f"base      {config.base.id}\nmethod    {name_of(config.method) or 'custom'}\ntemplate  {config.prompt_template!r}")
    for slot, adapter in checkpoint.adapters.items():
        size = sum(value.numel() for value in adapter.weights.values())
        print(f"adapter   {slot}: {adapter.config.peft_type.value}, {size:,} parameters")
    if checkpoint.theta is not None:
        settings: MixingSettings = config.mixing
        mixing = MixingCoefficients(len(checkpoint.theta[0]), settings.parameterization, settings.theta_init)
        mixing.load_state_dict({"theta_k": checkpoint.theta[0], "theta_v": checkpoint.theta[1]})
        print("layer     alpha keys   alpha values")
        for layer, (key, value) in enumerate(zip(*(alpha.tolist() for alpha in mixing()), strict=True)):
            print(f"{layer:5}     {key:10.3f}   {value:12.3f}")


def _engine(options: argparse.Namespace):
    from bitune.base.loading import load_base
    from bitune.inference.engine import Engine

    distributed.meet()
    engine = Engine(load_base(options.base, device=options.device, dtype=options.dtype))
    for source in options.checkpoint:
        engine.add_checkpoint(source)
    return engine
