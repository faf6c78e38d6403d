"""Checkpoints that are loaded and unloaded from the page, and another base that is asked for there, where the settings allow it.

From outside: `tab.build` and `base_tab.build` put the sections in the head of the page, and `tab.wire` connects the first when the tabs are there.
`handlers` and `base_handlers` know no Gradio.
"""
