"""One row of a data set, in any of the shapes that people export -> a record of one schema; what can be read in two ways is refused.

A record is a dict with `task` and either `question`, `choices` (list of texts), `label` (index), and `choices_first` where the model reads
the choices before the question; or `question`, `answer`; or `prompt`, `answer`. A column that is null is as good as none; one that belongs
to the prompt is not left out. Knows no file.
"""

import re
import string
from collections.abc import Iterable, Mapping, Sequence, Set

from bitune.errors import DataError, shown

_LONGEST_FIELDS = 300  # characters of a row's fields in a sentence
_LABELS = ("label", "answerKey", "answer")  # columns that name the right choice; the first that a row has is read
# What data sets of the Hub call the columns that hold a part of the prompt, without `_` and in small letters; such a part would be left
# out without a word. A name's plural, or one with a number at its end (image_1), counts as the name.
# fmt: off
_PARTS_OF_A_PROMPT = {
    # what the question is about
    "abstract", "article", "background", "body", "claim", "code", "content", "context", "ctx", "dialog", "dialogue", "doc",
    "document", "evidence", "excerpt", "facts", "hypothesis", "knowledge",
    "narrative", "paragraph", "passage", "persona", "premise", "scenario", "schema", "sentence", "situation", "story",
    "support", "table", "text", "theory", "transcript",
    # what else the model is told
    "definition", "hint", "input", "inputtext", "instruction", "system", "systemmessage", "systemprompt", "tool",
    # what was said before
    "chathistory", "conversation", "conversationhistory", "dialoghistory", "dialoguehistory", "history", "message", "turns",
    # what is no text
    "audio", "chart", "diagram", "figure", "image", "imagepath", "imageurl", "picture", "video",
    # choices that are not in `choices`
    "a", "b", "alternative", "answera", "answerchoice", "candidate", "choice", "choicea", "ending", "opa", "option",
    "optiona", "sol",
    # the columns that are read, by other letters or beside the one that is
    "prompt", "question", "questionstem",
}
# What a right answer is called elsewhere; it would be left out without a word.
_OTHER_ANSWERS = {
    "answer", "correct", "correctanswer", "expected", "expectedanswer", "expectedoutput", "gold", "goldanswer", "ideal", "output",
    "reference", "referenceanswer", "response", "rightanswer", "solution", "target",
}
# fmt: on
_SHAPES = "question, choices and label, or question and answer, or prompt and answer"
# Well-known shapes whose prompt somebody has to choose.
_OTHER_SHAPES = {
    "messages": "write what the model reads as 'prompt' and what it should say as 'answer'",
    "conversations": "write what the model reads as 'prompt' and what it should say as 'answer'",
    "instruction": "write instruction and input, just as the model should read them, as 'prompt', and the output as 'answer'",
}


def normalized(row: object, task: str, first_number: int | None = None) -> dict:
    """One row in the schema, other columns left out.

    Args:
        row: as parsed.
        task: names the record if it has no name of its own.
        first_number: as `first_number` finds it: which number labels in digits give to the first choice; None where nothing says it.

    Raises:
        DataError: a column that is needed is missing, of another kind, or can be read in two ways.
    """
    if not isinstance(row, dict):
        raise DataError(f"{type(row).__name__} instead of an object with fields; write {{...}}.")
    row = _present(row)
    record: dict = {"task": _text(row, "task") if "task" in row else task}
    reads = _only_one(row, "prompt", "question", "question_stem")
    text = _text(row, reads)
    _check_that_all_is_read(row, reads)
    if reads == "prompt":
        return record | {"prompt": text, "answer": _text(row, _only_one(row, "answer", "completion"))}
    record["question"] = text
    if "choices" not in row:
        return record | {"answer": _text(row, "answer")}
    texts, names = _choices(row["choices"])
    label = _label(row, texts, names, first_number)
    record |= {"choices": texts, "label": texts.index(texts[label])}  # the first of two with the same text, as they score alike
    return record | ({"choices_first": True} if _choices_first(row) else {})


def asked(row: object, first_number: int | None = None) -> tuple[str, str | None]:
    """What a row asks, to be put into a template, and the right answer as text; None where the row gives none.

    Choices are listed under their question as in training. Arguments and errors as in `normalized`, but that an answer may be missing.
    """
    given = _present(row) if isinstance(row, dict) else row
    if isinstance(given, dict) and not {"choices", "completion", *_LABELS} & given.keys():
        reads = _only_one(given, "prompt", "question", "question_stem")
        text = _text(given, reads)
        _check_that_all_is_read(given, reads)
        other = next((column for column, value in given.items() if value and _is_one_of(column, _OTHER_ANSWERS)), None)
        if other is not None:
            raise DataError(f"field {shown(other)} is not read; write the right answer as 'answer', or leave it out.")
        return text, None
    record = normalized(row, "", first_number)
    if "choices" not in record:
        return record.get("prompt") or record["question"], record["answer"]
    if "choices_first" in record:
        raise DataError(
            "field 'choices_first' is true, and a template begins with the question; leave it out, or write all that the model reads as "
            "'prompt' and ask without a template."
        )
    listed = "\n".join(record["choices"])
    return f"{record['question']}\n\nChoices:\n{listed}", record["choices"][record["label"]]


def first_number(rows: Iterable[object]) -> int | None:
    """Which number the labels of a data set give to the first choice, where labels are digits as text: 0 if one of them is 0, 1 if one
    is as large as there are choices, None if neither or both."""
    seen = set()
    for row in rows:
        if isinstance(row, dict) and isinstance(choices := row.get("choices"), list):
            column = next((column for column in _LABELS if column in _present(row)), None)
            value = row[column].strip() if column and isinstance(row[column], str) else ""
            if value not in choices:
                seen |= {0} if value == "0" else {1} if value == str(len(choices)) else set()
    return seen.pop() if len(seen) == 1 else None


def _present(row: Mapping[str, object]) -> dict[str, object]:
    """The columns that hold something: not null, nor an object of nulls, which is how a table shows a missing one."""

    def missing(value: object) -> bool:
        return value is None or (isinstance(value, dict) and all(part is None for part in value.values()))

    return {column: value for column, value in row.items() if not missing(value)}


def _only_one(row: Mapping[str, object], *columns: str) -> str:
    """The one of these columns that the row has; without any, the column that the error of `_text` shall name."""
    found = [column for column in columns if column in row]
    if len(found) > 1:
        raise DataError(
            f"fields {found[0]!r} and {found[1]!r} are both there; leave one out, as only one can be what the model reads."
        )
    other = next((column for column in _OTHER_SHAPES if column in row), None)
    if not found and other is not None:
        raise DataError(
            f"field {other!r} is of another kind of data, whose prompt can be made in several ways; {_OTHER_SHAPES[other]}."
        )
    return found[0] if found else "answer" if "answer" in columns else "question"


def _check_that_all_is_read(row: Mapping[str, object], reads: str) -> None:
    """DataError for a column that belongs to the prompt but is not read, beside the one that is."""
    if reads == "prompt" and row.get("choices"):
        raise DataError(
            "fields 'prompt' and 'choices' are both there, and a prompt is read as it stands, without choices; call it 'question' to have "
            "them listed and scored, or leave them out and write the text of the right one as 'answer'."
        )
    what = "prompt" if reads == "prompt" else "question"
    for column, value in row.items():
        if value and column not in (reads, "choices") and _is_one_of(column, _PARTS_OF_A_PROMPT):
            raise DataError(
                f"field {shown(column)} may be a part of the {what} and is not read; write it into the {what}, or leave it out."
            )


def _is_one_of(column: str, names: Set[str]) -> bool:
    """Whether a column has one of these names, which are without `_` and in small letters, or its plural, or one with a number at its end."""
    name = re.sub(r"[\W_]", "", column).casefold()
    return not names.isdisjoint((name, name.rstrip(string.digits), name.removesuffix("s")))


def _text(row: Mapping[str, object], field: str) -> str:
    """A field that must hold text with something in it, fit for a tokenizer."""
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        cause = f"is {shown(value)}, it needs a text" if field in row else "is missing or null"
        remedy = "" if field in row else f"; write {_SHAPES}"
        fields = ", ".join(field if field.isidentifier() else shown(field) for field in list(row)[:20]) or "no field"
        fields = fields if len(fields) <= _LONGEST_FIELDS else f"{fields[:_LONGEST_FIELDS]} …"
        raise DataError(f"field {field!r} {cause}; the row has {fields}{remedy}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"field {field!r} holds half of a surrogate pair at character {error.start + 1}; remove it.") from error
    return value


def _choices(choices: object) -> tuple[list[str], list[str] | None]:
    """The choices' texts, and their names where they have some: {"text": [...], "label": [...]}, or a list of such pairs."""
    if isinstance(choices, list) and choices and all(isinstance(choice, dict) for choice in choices):
        choices = {part: [choice.get(part) for choice in choices] for part in ("text", "label")}
    texts, names = choices, None
    if isinstance(choices, dict):
        texts, names = choices.get("text"), choices.get("label")
    if not isinstance(texts, list) or len(texts) < 2:
        raise DataError(f"choices are {shown(choices)}; a list of two or more texts is needed.")
    texts = [_text({"choices": text}, "choices") for text in texts]
    if isinstance(choices, dict) and (
        not isinstance(names, list) or len(names) != len(texts) or len(set(map(str, names))) < len(names)
    ):
        raise DataError(f"choices have the labels {shown(names)}; each of the {len(texts)} texts needs one of its own.")
    return texts, names


def _choices_first(row: Mapping[str, object]) -> bool:
    """Whether the model reads the choices before the question; after it where the row does not say."""
    value = row.get("choices_first", False)
    if not isinstance(value, bool):
        raise DataError(f"field 'choices_first' is {shown(value)}; write true or false, or leave it out.")
    return value


def _label(row: Mapping[str, object], texts: Sequence[str], names: Sequence[str] | None, first: int | None) -> int:
    """The index of the right choice."""
    columns = [column for column in _LABELS if column in row]
    if not columns:
        raise DataError(f"label is missing or null; an index from 0 to {len(texts) - 1} is needed.")
    readings = {column: sorted(_readings(row[column], texts, names, first)) for column in columns}
    column, *others = columns
    found, given = readings[column], f"{column} is {shown(row[column])}"
    if not found:
        raise DataError(
            f"{given}, no label of its choices; an index from 0 to {len(texts) - 1} is needed, or a choice's letter or text."
        )
    if len(found) > 1:
        ways = " or ".join(shown(texts[index]) for index in found[:2])
        raise DataError(f"{given}, which may mean {ways}; write it as an index from 0 to {len(texts) - 1}, without quotes.")
    for other in others:
        if len(readings[other]) == 1 and texts[readings[other][0]] != texts[found[0]]:
            raise DataError(f"{given} and {other} is {shown(row[other])}, which are two choices; leave the wrong one out.")
    return found[0]


def _readings(value: object, texts: Sequence[str], names: Sequence[str] | None, first: int | None) -> set[int]:
    """Every index that a label can mean; several with the same text count as one."""
    if isinstance(value, bool):
        return set()
    if isinstance(value, float) and value.is_integer():  # a column of integers with gaps, as pandas writes it
        value = int(value)
    found: set[int] = set()
    if isinstance(value, int):
        found = {value}
    if names is not None and str(value).strip() in (named := [str(name).strip() for name in names]):
        by_name = named.index(str(value).strip())
        return {by_name} if isinstance(value, str) else _in_range({by_name} | found, texts)
    if isinstance(value, str) and (text := value.strip()):
        found |= {index for index, choice in enumerate(texts) if choice.strip() == text}
        if names is None and len(text) == 1 and text in string.ascii_letters:
            found.add(string.ascii_uppercase.index(text.upper()))
        if names is None and text.isascii() and text.isdigit() and len(text) < 4:
            found |= {int(text) - number for number in ((0, 1) if first is None else (first,))}
    return _in_range(found, texts)


def _in_range(indices: Iterable[int], texts: Sequence[str]) -> set[int]:
    return {texts.index(texts[index]) for index in indices if 0 <= index < len(texts)}
