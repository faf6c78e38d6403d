"""What every tab is made of: the frame that wires it, templates and styles, checks and sentences, how variants look, what passes between tabs.

All modules here may be used by the tabs and by what builds the page; they know no tab, and bitune only as plain values and errors.
"""
