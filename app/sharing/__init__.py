"""What a visitor keeps of the page and passes on: links that restore it, runs saved as files, and a history in the browser.

app/page.py touches `tab.build_bar`, `tab.wire` and `tab.Shared`, and `SharingHandlers` in `handlers.py`.
`links.py` and `runs.py` are the two formats and know no Gradio; the *.js, *.html and *.css are the room's own.
"""
