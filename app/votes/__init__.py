"""Which answer is better, as visitors say: blind runs, votes that are kept in a file, and the tally of each pair of variants.

From outside use `place.kept_in`, `handlers.Voting`, `ballot.Ballot`, `blind` and `tab`; `python -m app.votes export` writes the votes for
other programs. Only `tab` knows the page.
"""
