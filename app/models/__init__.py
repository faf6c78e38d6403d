"""Checkpoints that are loaded and unloaded from the page, where the settings allow it.

From outside: `tab.build` puts the section in the head of the page, and `tab.wire` connects it when the tabs are there. `handlers` knows no Gradio.
"""
