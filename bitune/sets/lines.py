"""A comparison as lines of text, for the command line."""

from bitune.evaluation.intervals import Interval
from bitune.sets.compared import Comparison, OfPair, OfVariant


def comparison_lines(compared: Comparison) -> list[str]:
    """A line a variant, then one a pair; shares in percent, their differences in points, each with its 95 % interval where it has one."""
    samples = "" if compared.rows == compared.prompts else f", {compared.rows:,} answers of each variant"
    judged = f", {compared.judged:,} of them with a right answer" if compared.judged else ""
    lines = [f"{compared.prompts:,} prompts{judged}{samples}"]
    lines += [f"{name:32} {_variant(one)}" for name, one in compared.variants.items()]
    return lines + [f"{f'{second} and {first}':32} {_pair(pair)}" for (first, second), pair in compared.pairs.items()]


def _variant(one: OfVariant) -> str:
    facts = [f"{interval(one.tokens)} tokens", f"{100 * one.cut:.0f} % cut at the limit"]
    return "   ".join(facts + ([f"right {percent(one.right)}"] if one.right else []))


def _pair(pair: OfPair) -> str:
    facts = [f"the same text {percent(pair.same)}", f"{interval(pair.tokens, '+')} tokens"]
    if pair.right:
        verdict = f"{'more than' if pair.counts else 'within'} luck, sign test p {pair.sign_p:.2g}"
        facts.append(f"right {points(pair.right)}, alone {pair.only_second} to {pair.only_first}: {verdict}")
    return "   ".join(facts)


def percent(share: Interval) -> str:
    """`41.0 % (38.2 to 44.1)`."""
    return _written(share, "", " %", 100)


def points(difference: Interval) -> str:
    """The difference of two shares: `+3.1 points (-1.0 to +7.2)`, since 41 % and 44 % are 3 points apart and not 3 %."""
    return _written(difference, "+", " points", 100)


def interval(value: Interval, sign: str = "") -> str:
    """`23.4 (20.1 to 26.7)`."""
    return _written(value, sign)


def _written(value: Interval, sign: str, unit: str = "", times: int = 1) -> str:
    mean = f"{times * value.mean:{sign}.1f}{unit}"
    return mean if value.low is None else f"{mean} ({times * value.low:{sign}.1f} to {times * value.high:{sign}.1f})"
