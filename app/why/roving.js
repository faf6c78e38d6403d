// Everything with a note is one stop of the Tab key: arrow keys go from one to the next, Home and End to the ends.
element.addEventListener("keydown", (event) => {
    const here = event.target.closest("[data-note]");
    if (!here) return;
    const group = here.closest("table, .bt-shaded-prompt");
    const all = [...group.querySelectorAll("[data-note]")];
    const columns = Number(group.dataset.columns || 1);
    const at = all.indexOf(here);
    const right = getComputedStyle(group).direction === "rtl" ? -1 : 1; // an arrow leads to its side on the screen
    const places = { ArrowRight: at + right, ArrowLeft: at - right, ArrowDown: at + columns, ArrowUp: at - columns, Home: 0, End: all.length - 1 };
    const next = all[places[event.key]];
    if (!next) return;
    event.preventDefault();
    here.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
});
