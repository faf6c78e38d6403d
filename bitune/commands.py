"""What each command of the command line does: its parsed flags in, lines on stdout out. What can be refused by files alone is refused
in preflight.py, before this module is imported."""

import argparse
from pathlib import Path

import torch
import transformers
from tqdm import tqdm

from bitune import distributed
from bitune.adapters.kinds import new_peft_config
from bitune.base.devices import choose_device, choose_dtype
from bitune.base.loading import load_base
from bitune.checkpoints.folder import read, resolve_checkpoint
from bitune.data.prompt_sets import load_set
from bitune.data.sets import load_evaluation_sets, load_training_data, select_items, trained_prompts
from bitune.errors import ConfigError
from bitune.evaluation import run
from bitune.evaluation.lines import average_lines, report_lines
from bitune.evaluation.report import write_reports
from bitune.inference.engine import Engine
from bitune.model.bitune_model import BituneModel
from bitune.model.mixing import MixingCoefficients
from bitune.outputs import from_here, full_path
from bitune.preflight import set_settings, training_settings
from bitune.progress import doing
from bitune.schema.config import MixingSettings
from bitune.schema.variants import name_of
from bitune.sets.compared import compare as compare_rows
from bitune.sets.files import open_set_file, write_csv
from bitune.sets.lines import comparison_lines
from bitune.sets.run import answer_set, set_facts
from bitune.training import trainer
from bitune.training.card import card
from bitune.training.state import last_checkpoint


def generate(options: argparse.Namespace) -> None:
    """Print each variant's answer under its name."""
    engine = _engine(options)
    settings = {key: getattr(options, key) for key in ("template", "max_new_tokens", "temperature", "top_p", "seed")}
    with doing("Answering"):
        *_, last = engine.stream(options.prompt, list(engine.variants), **settings)
    for name, completion in last.completions.items():
        print(f"--- {name} ({completion.tokens} tokens, {completion.finish_reason})\n{completion.text}")


def compare(options: argparse.Namespace) -> None:
    """Answer the prompts of a file with every variant, write the rows as they come, and print what they say together."""
    prompts, settings = load_set(options.file)[: options.limit], set_settings(options)
    output, table = (full_path(place) if place else None for place in (options.output, options.csv))
    engine = _engine(options)
    names = list(engine.variants)
    file = open_set_file(output, set_facts(engine, names, prompts, settings), resume=options.resume) if output else None
    rows = list(file.rows) if file else []
    batches = answer_set(engine, prompts, names, settings, batch_size=options.batch_size, done=[row.key for row in rows])
    with tqdm(total=len(prompts) * settings.samples, initial=len(rows), desc=Path(options.file).name, unit="prompt") as bar:
        for batch in batches:
            if file:
                file.add(batch)
            rows += batch
            bar.update(len(batch))
    if table:
        write_csv(table, rows)
    print("\n".join(comparison_lines(compare_rows(rows))))


def train(options: argparse.Namespace) -> None:
    """Train, save, and say where."""
    output = full_path(options.output)
    state = Path(f"{output}.state")
    settings = training_settings(options)
    torch.manual_seed(options.seed)
    device = choose_device(options.device)
    dtype = choose_dtype("bfloat16" if options.bf16 else options.dtype, device)
    # What is to be put into shards may be too large for one device; accelerate moves what it splits.
    base = load_base(options.base, device="cpu" if distributed.is_sharded() else device, dtype=dtype)
    if base.tokenizer is None:
        raise ConfigError(
            f"The base {options.base!r} has no tokenizer, so text cannot be trained on; give a folder that has one."
        )
    limits = {name: getattr(options, name) for name in ("max_prompt_tokens", "max_answer_tokens", "validation", "limit", "seed")}
    with doing("Reading and tokenizing the data"):
        data = load_training_data(options.data, base.tokenizer, **limits)
    if distributed.is_main():
        print(
            f"{len(data.train.pairs):,} examples to train on, {len(data.validation.pairs):,} to validate; "
            f"{data.train.cut:,} prompts cut, {data.train.dropped:,} dropped"
        )
    peft = new_peft_config(base.model, options.peft, options.rank, options.lora_alpha, options.targets, options.dropout)
    mixing = MixingSettings(options.parameterization, options.theta_init)
    model = BituneModel.create(base, options.method, peft, mixing, options.template, options.initial_mixing_alpha)
    start = {"initial_mixing_alpha": options.initial_mixing_alpha} if model.mixing is not None else {}
    if options.resume and distributed.is_main() and last_checkpoint(state) is None:
        print(f"there is no state in {from_here(state)!r} to go on from: training from the start")
    figures = trainer.train(model, data.train.pairs, settings, state, data.validation.pairs, resume=options.resume, about=start)
    if distributed.is_main():
        model.record_training(trainer.training_facts(model, settings, figures, data.facts()) | start)
        model.card = card(model.bitune_config)
        model.save_pretrained(output, dtype=getattr(torch, options.save_dtype))
        if "train_runtime" not in figures:
            print(f"the run had ended with the state in {from_here(state)!r}: nothing more was trained")
        losses = f"loss {figures['train_loss']:.4f}"
        losses += f", on the held-out records {figures['eval_loss']:.4f}" if "eval_loss" in figures else ""
        print(f"saved {options.output}: {model.trainable_parameters():,} trained parameters, {losses}")


def evaluate(options: argparse.Namespace) -> None:
    """Print accuracy and paired differences of every variant on every set; the report is written after each."""
    output = full_path(options.output) if options.output else None
    sets, trained_on = load_evaluation_sets(options.data, options.split), trained_prompts(options.leave_out)
    engine, reports = _engine(options), {}
    limits = {name: getattr(options, name) for name in ("max_prompt_tokens", "max_answer_tokens", "limit")}
    how = {"batch_size": options.batch_size, "max_new_tokens": options.max_new_tokens}
    selected = select_items(sets, engine.base.tokenizer, **limits, trained_on=trained_on)
    for source, examples in selected.items():
        name = Path(source).name
        with tqdm(total=len(examples), desc=name, disable=not distributed.is_main()) as bar:
            reports[source] = run.evaluate(
                engine.manager, engine.variants, examples, engine.base.tokenizer, progress=bar.update, **how
            )
        if distributed.is_main():
            print(f"{name}: {len(examples):,} of {len(sets[source]):,} items")
            print("\n".join(report_lines(name, reports[source])))
            if output:
                write_reports(output, _evaluation_settings(options, engine), reports)
    if distributed.is_main() and len(reports) > 1:
        print("\n".join(average_lines(list(reports.values()))))


def _evaluation_settings(options: argparse.Namespace, engine: Engine) -> dict[str, object]:
    """What a report says of how it was made."""
    limits = ("limit", "max_prompt_tokens", "max_answer_tokens", "leave_out")
    chosen = {name: getattr(options, name) for name in ("checkpoint", "split", *limits, "max_new_tokens", "batch_size")}
    facts = engine.base_facts
    versions = {module.__name__: module.__version__ for module in (torch, transformers)}
    return {"base": facts.name, "device": facts.device, "dtype": facts.dtype, **chosen, "versions": versions}


def convert(options: argparse.Namespace) -> None:
    """Read the authors' folder on its base and save it in our format."""
    output = full_path(options.output)
    base = load_base(options.base, device=options.device, dtype=options.dtype)
    with doing(f"Converting {options.reference}"):
        BituneModel.from_reference(options.reference, base=base).save_pretrained(output)
    print(f"saved {options.output}")


def inspect(options: argparse.Namespace) -> None:
    """Print config and mixing ratios; no base is loaded."""
    checkpoint = read(resolve_checkpoint(options.checkpoint))
    config = checkpoint.config
    print(f"base      {config.base.id}\nmethod    {name_of(config.method) or 'custom'}\ntemplate  {config.prompt_template!r}")
    for slot, adapter in checkpoint.adapters.items():
        size = sum(value.numel() for value in adapter.weights.values())
        print(f"adapter   {slot}: {adapter.config.peft_type.value}, {size:,} parameters")
    if checkpoint.theta is not None:
        mixing = MixingCoefficients(len(checkpoint.theta[0]), config.mixing.parameterization, config.mixing.theta_init)
        mixing.load_state_dict({"theta_k": checkpoint.theta[0], "theta_v": checkpoint.theta[1]})
        print("layer     alpha keys   alpha values")
        for layer, (key, value) in enumerate(zip(*(alpha.tolist() for alpha in mixing()), strict=True)):
            print(f"{layer:5}     {key:10.3f}   {value:12.3f}")


def _engine(options: argparse.Namespace) -> Engine:
    distributed.meet()
    with doing(f"Loading {options.base}"):
        engine = Engine(load_base(options.base, device=options.device, dtype=options.dtype))
        for source in options.checkpoint:
            engine.add_checkpoint(source)
    return engine


COMMANDS = {command.__name__: command for command in (generate, compare, train, evaluate, convert, inspect)}
