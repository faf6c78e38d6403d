"""The tab Evidence: what the study measured, as a table and a chart, and its questions one by one.

Here live the readers of assets/evidence and of the questions' texts, and the explorer. From outside only app/page.py touches it:
`tab.build`, `handlers`, `data.FOLDER`.
"""
