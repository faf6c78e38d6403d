"""The rule for errors, the same in every tab: one sentence for people; what nobody foresaw goes to the log."""

import logging

from bitune.errors import BituneError, is_out_of_memory

log = logging.getLogger(__name__)


def sentence(error: Exception) -> str:
    """An error as one sentence for a person.

    Args:
        error: What was raised while a request was answered.

    Returns:
        The text of a BituneError; what to do where memory ran out. Of anything else only the name of its class. The log has the traceback of
        both.
    """
    if isinstance(error, BituneError):
        return str(error)
    log.exception("a request failed", exc_info=error)
    if is_out_of_memory(error):
        return "There is not enough memory for this request; ask for fewer variants, a shorter prompt or fewer new tokens."
    return f"This request failed inside the model ({type(error).__name__}). The log of the app has the details; the app goes on."
