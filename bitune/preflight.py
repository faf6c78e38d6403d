"""What of a command can be refused at once: paths, names and numbers, by files alone, before torch is imported.

Whatever is refused here is refused in the words that loading would find for it, by the same functions.
"""

import argparse
from dataclasses import fields

from bitune import distributed
from bitune.base.local import check_base
from bitune.checkpoints.older import check_target
from bitune.checkpoints.places import check_checkpoint, check_reference
from bitune.data.lines import local_file
from bitune.data.prompt_sets import load_set
from bitune.errors import ConfigError
from bitune.outputs import check_file, check_folder, full_path
from bitune.schema.generation import GenerationSettings
from bitune.sets.files import check_set_file
from bitune.sets.rows import SetSettings
from bitune.training.settings import TrainingSettings


def generate(options: argparse.Namespace) -> None:
    """The base, the checkpoints, and how to answer."""
    GenerationSettings(options.max_new_tokens, options.temperature, options.top_p, options.seed)
    _check_engine(options)


def compare(options: argparse.Namespace) -> None:
    """The places of what is written, how to answer, the prompts, the base and the checkpoints."""
    if options.resume and not options.output:
        raise ConfigError(
            "--resume is given without --output, so there is nothing to go on with; name the file of the earlier run."
        )
    places = [full_path(place) for place in (options.output, options.csv) if place]
    if full_path(options.file) in places or len(places) > len(set(places)):
        raise ConfigError(
            "Two of the prompts, --output and --csv are one file, so one would replace the other; name another file."
        )
    if options.output:
        check_set_file(full_path(options.output), resume=options.resume)
    if options.csv:
        check_file(full_path(options.csv))
    set_settings(options)
    load_set(options.file)
    _check_engine(options)


def train(options: argparse.Namespace) -> None:
    """The place of the checkpoint, the settings, the base and the data."""
    _check_output(options)
    if options.dtype == "int8":
        raise ConfigError("--dtype int8 is for answers; training adapts the weights as they are: leave it out, or use --bf16.")
    training_settings(options)
    check_base(options.base)
    for source in options.data:
        local_file(source)


def evaluate(options: argparse.Namespace) -> None:
    """The place of the report, the data, the base and the checkpoints."""
    if options.output and distributed.is_main():
        from bitune.evaluation.report import check_report_file  # imports numpy

        check_report_file(full_path(options.output))
    for source in (*options.data, *options.leave_out):
        local_file(source)
    _check_engine(options)


def convert(options: argparse.Namespace) -> None:
    """The place of the checkpoint, the base and the authors' folder."""
    _check_output(options)
    check_reference(options.reference)
    check_base(options.base)


def inspect(options: argparse.Namespace) -> None:
    """The checkpoint."""
    check_checkpoint(options.checkpoint)


def training_settings(options: argparse.Namespace) -> TrainingSettings:
    """The settings among the flags of `train`; ConfigError where one makes no sense."""
    return TrainingSettings(**{setting.name: getattr(options, setting.name) for setting in fields(TrainingSettings)})


def set_settings(options: argparse.Namespace) -> SetSettings:
    """How `compare` asks every prompt; ConfigError where that makes no sense."""
    return SetSettings(**{setting.name: getattr(options, setting.name) for setting in fields(SetSettings)})


def _check_engine(options: argparse.Namespace) -> None:
    check_base(options.base)
    for source in options.checkpoint:
        check_checkpoint(source)


def _check_output(options: argparse.Namespace) -> None:
    output = full_path(options.output)
    if distributed.is_main():
        check_target(output)
        check_folder(output)


PREFLIGHT = {command.__name__: command for command in (generate, compare, train, evaluate, convert, inspect)}
