"""The tab Attention: what every head looks at in each pass over a prompt; maps on canvas, words, downloads, BertViz.

app/page.py touches `tab.build` and `handlers.AttentionHandlers`; the rest, with the *.js, view.html and view.css, is the tab's own.
"""
