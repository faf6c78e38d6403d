// Maps with their labels, pointing at their cells by hand and by key, and what is pinned.

function buildMaps() {
    const { seen } = view, place = part("maps");
    place.replaceChildren();
    part("large").close();
    part("large-map").replaceChildren();
    view.figures = [];
    element.style.setProperty("--longest", Math.max(...seen.labels.map((name) => [...name].length)));
    for (const panel of panelsOf(seen, view.picture, false)) {
        const figure = make(place, "figure", "bt-map");
        view.figures.push(figure);
        const caption = make(figure, "figcaption");
        make(caption, "b", "", panel.title);
        caption.append(" " + panel.about + " ");
        const larger = make(caption, "button", "bt-larger", "Enlarge");
        larger.type = "button";
        larger.addEventListener("click", () => enlarge(figure, panel.title));
        const frame = make(figure, "div", "bt-frame"), canvas = make(frame, "canvas");
        canvas.tabIndex = 0;
        canvas.setAttribute("role", "application"); // so that a screen reader leaves the arrow keys to it; the readout speaks
        canvas.setAttribute("aria-label", panel.title + ": a map whose rows look at its columns, both are the tokens of the text");
        for (const css of ["bt-row-mark", "bt-column-mark", "bt-pin-mark", "bt-answer-mark", "bt-side", "bt-above"]) make(frame, "div", css);
        frame.querySelector(".bt-answer-mark").style.top = (100 * seen.prompt_rows) / seen.rows + "%";
        make(figure, "div", "bt-see-legend");
        canvas.addEventListener("pointermove", (event) => point(placeOf(event, canvas)));
        canvas.addEventListener("pointerleave", () => point(null));
        canvas.addEventListener("click", (event) => pin(placeOf(event, canvas)));
        canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && point(atCell()));
        canvas.addEventListener("blur", () => point(null));
        canvas.addEventListener("keydown", walkMap);
    }
    part("map-words").textContent = wordsOn(seen);
    labelMaps();
}

const BESIDE_WORDS = "A row looks at its columns. Both variants read the same tokens; below the line are the tokens that write the answer.";

function wordsOn(seen) {
    if (pairOf(view.picture) !== "readings") return BESIDE_WORDS;
    const looks = "A row looks at its columns. Below the line are the tokens that write the answer";
    if (seen.passes.length < 2) return looks + ". This variant reads the prompt once, so there is one map and nothing to compare.";
    return looks + ": in the first map as if there were no second reading, in the second map as they do, with both readings mixed.";
}

// As many names as fit; the others show when pointed at.
function labelMaps() {
    if (!view.seen) return;
    const { rows, labels } = view.seen;
    for (const box of element.querySelectorAll(".bt-side, .bt-above")) {
        const step = everyNth(rows, box.parentElement.clientWidth || 260);
        box.replaceChildren();
        for (let token = 0; token < rows; token += step) {
            const name = make(box, "span", "", labels[token]);
            name.style.setProperty("--at", (100 * (token + 0.5)) / rows + "%");
            name.dir = "auto";
        }
        make(box, "b", "").hidden = true;
    }
}

function placeOf(event, canvas) {
    const box = canvas.getBoundingClientRect(), last = view.seen.rows - 1;
    const at = (offset, size) => Math.min(last, Math.max(0, Math.floor((offset / size) * view.seen.rows)));
    return { row: at(event.clientY - box.top, box.height), column: at(event.clientX - box.left, box.width) };
}

// What is shown while nothing is pointed at.
function resting() {
    return view.pinned || { row: view.seen.prompt_rows };
}

// The cell that keys start from.
function atCell() {
    const { row, column } = view.pointed || resting();
    return { row, column: column ?? 0 };
}

// Where a key leads from a cell; null for any other key. Home and End stay in the row unless Ctrl is held.
function stepped({ key, ctrlKey }, { row, column }, rows, columns) {
    const ends = { Home: [ctrlKey ? 0 : row, 0], End: [ctrlKey ? rows - 1 : row, columns - 1] }[key];
    if (ends) return { row: ends[0], column: ends[1] };
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], PageUp: [-10, 0], PageDown: [10, 0] }[key];
    if (!step) return null;
    const within = (place, count) => Math.min(count - 1, Math.max(0, place));
    return { row: within(row + step[0], rows), column: within(column + step[1], columns) };
}

function walkMap(event) {
    const { rows } = view.seen, at = atCell(), next = stepped(event, at, rows, rows);
    if (!next && !["Enter", " ", "Escape"].includes(event.key)) return;
    if (event.key === "Escape" && !view.pinned) return;
    event.preventDefault();
    if (next) point(next);
    else if (event.key === "Escape") letGo();
    else pin(at);
}

// A second time lets it go.
function pin(at) {
    const { row, column } = view.pinned || {};
    if (row === at.row && column === at.column) return letGo();
    view.pinned = at;
    point(at);
}

function letGo() {
    view.pinned = null;
    point(view.pointed);
}

// Show a row (and a column) everywhere: on the maps, in the texts, in words. Null goes back to what is pinned.
function point(at) {
    if (!view.picture) return;
    view.pointed = at;
    const { row, column } = at || resting();
    mark(row, column);
    shadeTexts(row);
    readOut(at);
}

function mark(row, column) {
    const { rows, labels: names } = view.seen, share = (token) => (100 * token) / rows + "%";
    for (const frame of element.querySelectorAll(".bt-frame")) {
        const rowMark = frame.querySelector(".bt-row-mark"), columnMark = frame.querySelector(".bt-column-mark");
        rowMark.style.top = share(row);
        columnMark.style.left = share(column ?? 0);
        rowMark.style.height = columnMark.style.width = share(1);
        columnMark.hidden = column === undefined;
        markPin(frame.querySelector(".bt-pin-mark"), share);
        for (const [css, token] of [["bt-side", row], ["bt-above", column]]) {
            const name = frame.querySelector("." + css + " b");
            name.hidden = token === undefined;
            name.textContent = token === undefined ? "" : names[token];
            name.style.setProperty("--at", share((token ?? 0) + 0.5));
        }
    }
}

function markPin(box, share) {
    const { row, column } = view.pinned || {};
    box.hidden = column === undefined;
    if (box.hidden) return;
    Object.assign(box.style, { top: share(row), left: share(column), width: share(1), height: share(1) });
}

// A map in the width of the window: the figure itself moves there, and back when that is closed.
function enlarge(figure, title) {
    const home = document.createComment("");
    figure.replaceWith(home);
    part("large-map").replaceChildren(figure);
    part("large-title").textContent = "Attention of " + part("variant").textContent + ": " + title.toLowerCase() + ", " + titleOf(view.picture).toLowerCase();
    part("large").addEventListener("close", () => {
        home.replaceWith(figure);
        labelMaps();
    }, { once: true });
    part("large").showModal();
    labelMaps();
    point(view.pointed);
}

const sizes = new ResizeObserver(() => {
    labelMaps();
    point(view.pointed);
});
sizes.observe(part("maps"));
sizes.observe(part("large-map"));
part("shrink").addEventListener("click", () => part("large").close());
part("let-go").addEventListener("click", letGo);
