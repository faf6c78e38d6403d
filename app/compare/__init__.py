"""The tab Compare: one prompt, answered by several variants side by side, and the answers recorded earlier.

app/page.py touches `tab.build`, `handlers.CompareHandlers` and `recorded.Recording`; app.py and app/record.py load and write the recordings.
"""
