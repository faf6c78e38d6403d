"""The tab Many prompts: every chosen variant answers every prompt of a set, batch by batch.

From outside: `tab.build`. `handlers` knows no Gradio; `run` is the way of a set through the page's line, one request a batch.
"""
