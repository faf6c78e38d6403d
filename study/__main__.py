"""python -m study run | all | own | table | lengths | ship: the command line of the study."""

import argparse
import sys
from pathlib import Path

from bitune.errors import BituneError
from bitune.flags import Flags, status_of
from study.plan import ALL_QUESTIONS, RESULTS, SETTINGS, named, runs


def main() -> int:
    """Run a command; returns the exit status."""
    parser = Flags(prog="python -m study", description="Train and measure, resumable.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="carry out what has no result yet; start it several times to use several cores")
    run.add_argument("--data", type=Path, required=True, help="folder with arc_easy.train.jsonl and the others")
    run.add_argument("--state", type=Path, default=Path("runs/study"), help="folder for what training keeps on the way")
    run.add_argument("--setting", choices=sorted(SETTINGS), action="append", help="one of them alone; may be given again")
    run.add_argument("--only", metavar="RUN", help="one run by its name, as it stands in study/results, whatever its setting")
    run.add_argument("--results", type=Path, default=RESULTS, help="folder for the results; another one to have a run again")
    run.set_defaults(call=_run)
    everything = commands.add_parser("all", help="measure the shipped checkpoints on all test questions; what is done stays")
    everything.add_argument("--data", type=Path, required=True, help="folder with arc_easy.test.jsonl and the others")
    everything.add_argument("--state", type=Path, default=Path("runs/study"), help="folder for what is done")
    everything.add_argument(
        "--setting", choices=sorted(ALL_QUESTIONS), action="append", help="one of them alone; may be given again"
    )
    everything.set_defaults(call=_all)
    own = commands.add_parser("own", help="score the shipped checkpoints on assets/questions/own.jsonl; what is done stays")
    own.add_argument("--state", type=Path, default=Path("runs/own.json"), help="file for what is done")
    own.set_defaults(call=_own)
    table = commands.add_parser("table", help="write assets/evidence and the shipped cards from the results, print the tables")
    table.set_defaults(call=_table)
    lengths = commands.add_parser("lengths", help="print where Bitune is ahead of LoRA: on short, middling or long prompts")
    lengths.add_argument("--data", type=Path, required=True, help="folder with arc_easy.test.jsonl and the others")
    lengths.set_defaults(call=_lengths)
    ship = commands.add_parser("ship", help="make a checkpoint folder with its card of a finished run")
    ship.add_argument("run", help="the run's name")
    ship.add_argument("output", type=Path, help="the folder to write")
    ship.add_argument("--state", type=Path, default=Path("runs/study"), help="folder for what training kept on the way")
    ship.set_defaults(call=_ship)
    options = parser.parse_args()
    return status_of("study", lambda: options.call(options))


def _run(options: argparse.Namespace) -> None:
    from bitune.base.loading import load_base
    from study.run import BASE_ID, Study, carry_out, result_of

    wanted = [named(options.only)] if options.only else runs(options.setting or list(SETTINGS))
    if options.only and (result := result_of(wanted[0], options.results)).is_file():
        raise BituneError(
            f"{options.only} has its result already, {result}; to have it again name another folder with --results."
        )
    study = Study(load_base(BASE_ID, dtype="bfloat16"), options.data, options.state, options.results)
    failed = carry_out(study, wanted)
    if failed:
        raise BituneError("These runs failed, and are tried again at the next start:\n" + "\n".join(failed))


def _all(options: argparse.Namespace) -> None:
    from bitune.base.loading import load_base
    from study.all_questions import measure_all
    from study.run import BASE_ID

    settings = {name: ALL_QUESTIONS[name] for name in options.setting or ALL_QUESTIONS}
    for file in measure_all(load_base(BASE_ID, dtype="float32"), options.data, options.state, settings=settings):
        print(f"saved {file}")


def _own(options: argparse.Namespace) -> None:
    from bitune.base.loading import load_base
    from study.own import measure_own
    from study.run import BASE_ID

    measure_own(load_base(BASE_ID, dtype="float32"), options.state)
    print("saved assets/evidence/own.json")


def _table(options: argparse.Namespace) -> None:
    from study.ship import cards
    from study.table import write_evidence

    print(write_evidence())
    for file, text in cards().items():
        file.write_text(text, encoding="utf-8")


def _lengths(options: argparse.Namespace) -> None:
    from bitune.base.loading import load_base
    from study.lengths import by_length, markdown, prompt_lengths
    from study.run import BASE_ID
    from study.table import REFERENCE, read_results, rows_of

    tokenizer, results = load_base(BASE_ID).tokenizer, read_results()
    for setting in SETTINGS.values():
        rows = {row.name: row for row in rows_of(setting, results)}
        if {"Bitune", REFERENCE} <= rows.keys():
            pair = rows["Bitune"], rows[REFERENCE]
            print(markdown(setting, *pair, by_length(setting, *pair, prompt_lengths(setting, options.data, tokenizer))))


def _ship(options: argparse.Namespace) -> None:
    from study.ship import ship

    ship(named(options.run), options.state, options.output)
    print(f"saved {options.output}")


if __name__ == "__main__":
    sys.exit(main())
