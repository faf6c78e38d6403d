"""A comparison as lines of text, for the command line."""

from bitune.evaluation.intervals import Interval
from bitune.sets.compared import Comparison, OfPair, OfVariant


def comparison_lines(compared: Comparison) -> list[str]:
    """A line a variant, then one a pair; shares in percent, their differences in points, each with its 95 % interval."""
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
        facts.append(f"right {points(pair.right)}, alone {pair.only_second} to {pair.only_first}")
    return "   ".join(facts)


def percent(share: Interval) -> str:
    """`41.0 % (38.2 to 44.1)`."""
    return "{:.1f} % ({:.1f} to {:.1f})".format(*_hundredfold(share))


def points(difference: Interval) -> str:
    """The difference of two shares: `+3.1 points (-1.0 to +7.2)`, since 41 % and 44 % are 3 points apart and not 3 %."""
    return "{:+.1f} points ({:+.1f} to {:+.1f})".format(*_hundredfold(difference))


def interval(value: Interval, sign: str = "") -> str:
    """`23.4 (20.1 to 26.7)`."""
    return "{:{s}.1f} ({:{s}.1f} to {:{s}.1f})".format(*_values(value), s=sign)


def _hundredfold(value: Interval) -> tuple[float, ...]:
    return tuple(100 * one for one in _values(value))


def _values(value: Interval) -> tuple[float, float, float]:
    return value.mean, value.low, value.high
