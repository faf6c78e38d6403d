"""Why the answers of a run part: what can be asked once it has ended, below the answers in the tab Compare.

From outside use `tab.build`, which app/compare/tab.py calls. `run.EndedRun` is what every part looks at, `part.Part` what one is; each part has
a module with `build`, listed in `tab.PARTS`, and runs the model only when its button is pressed.
"""
