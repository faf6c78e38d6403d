// Maps with their labels, the text as tokens, and pointing at either.

const ANSWERING = ["without the second reading", "with both readings mixed"];

function buildMaps() {
    const { seen } = view, place = part("maps");
    place.replaceChildren();
    place.style.setProperty("--longest", Math.max(...seen.labels.map((name) => [...name].length)));
    for (const panel of panelsOf(seen, seen.picture, false)) {
        const figure = make(place, "figure", "bt-map"), caption = make(figure, "figcaption");
        make(caption, "b", "", panel.title);
        caption.append(" " + panel.about);
        const frame = make(figure, "div", "bt-frame"), canvas = make(frame, "canvas");
        canvas.setAttribute("role", "img");
        canvas.setAttribute("aria-label", panel.title + ": rows look at columns, both are the tokens of the text");
        for (const css of ["bt-row-mark", "bt-column-mark", "bt-answer-mark", "bt-side", "bt-above"]) make(frame, "div", css);
        frame.querySelector(".bt-answer-mark").style.top = (100 * seen.prompt_rows) / seen.rows + "%";
        make(figure, "div", "bt-see-legend");
        canvas.addEventListener("pointermove", (event) => point(placeOf(event, canvas)));
        canvas.addEventListener("pointerleave", () => point(null));
        canvas.addEventListener("click", (event) => pin(placeOf(event, canvas).row));
    }
    part("map-words").textContent = wordsOn(seen);
    labelMaps();
}

function wordsOn(seen) {
    const looks = "A row looks at its columns. Below the line are the tokens that write the answer";
    if (seen.passes.length < 2) return looks + ". This variant reads the prompt once, so there is one map and nothing to compare.";
    return looks + ": in the first map as if there were no second reading, in the second map as they do, with both readings mixed.";
}

// As many names as fit; the others show when pointed at.
function labelMaps() {
    if (!view.seen) return;
    const { rows, labels } = view.seen;
    for (const box of part("maps").querySelectorAll(".bt-side, .bt-above")) {
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

function pin(row) {
    view.pinned = row;
    point({ row });
}

// Show a row (and a column) everywhere: on the maps, in the texts, in words. Null goes back to what was clicked last.
function point(at) {
    view.pointed = at;
    const { row, column } = at || { row: view.pinned };
    mark(row, column);
    shadeTexts(row);
    readOut(row, column);
}

function readOut(row, column) {
    const { seen } = view, place = part("readout"), name = (token) => "“" + seen.labels[token] + "”";
    place.replaceChildren();
    make(place, "b", "", name(row) + (column === undefined ? " looks most at" : " looks at " + name(column)));
    seen.passes.forEach((pass, number) => {
        const panel = view.panels[number], line = make(place, "span", "bt-ink-" + (number ? "bidirectional" : pass.attention));
        const blind = column !== undefined && hidden(panel, row, column, seen.prompt_rows);
        const weight = column === undefined ? looksAt(panel, row) : percent(panel.weights[row * seen.rows + column]);
        make(line, "i", "");
        make(line, "span", "", passName(row, number) + ": " + (blind ? "cannot look there" : weight));
    });
}

function passName(row, place) {
    if (view.seen.passes.length === 1) return row >= view.seen.prompt_rows ? "answering" : "reading";
    if (row >= view.seen.prompt_rows) return ANSWERING[place];
    return place ? "second reading" : "first reading";
}

function looksAt(panel, row) {
    const { rows, labels: names } = view.seen, skip = part("without-first").checked ? 1 : 0;
    const weights = [...panel.weights.subarray(row * rows, (row + 1) * rows)].map((weight, token) => [weight, token]).slice(skip);
    const most = weights.sort((a, b) => b[0] - a[0]).slice(0, 3).filter(([weight]) => weight > 0);
    return most.map(([weight, token]) => "“" + names[token] + "” " + percent(weight)).join(", ") || "nothing";
}

function mark(row, column) {
    const { rows, labels: names } = view.seen, share = (token) => (100 * token) / rows + "%";
    for (const frame of part("maps").querySelectorAll(".bt-frame")) {
        const rowMark = frame.querySelector(".bt-row-mark"), columnMark = frame.querySelector(".bt-column-mark");
        rowMark.style.top = share(row);
        columnMark.style.left = share(column ?? 0);
        rowMark.style.height = columnMark.style.width = share(1);
        columnMark.hidden = column === undefined;
        for (const [css, token] of [["bt-side", row], ["bt-above", column]]) {
            const name = frame.querySelector("." + css + " b");
            name.hidden = token === undefined;
            name.textContent = token === undefined ? "" : names[token];
            name.style.setProperty("--at", share((token ?? 0) + 0.5));
        }
    }
}

function buildTexts() {
    const { seen } = view, place = part("texts");
    place.replaceChildren();
    seen.passes.forEach((pass, number) => {
        const box = make(place, "div", "bt-reading bt-ink-" + (number ? "bidirectional" : pass.attention));
        make(box, "b", "", pass.title);
        const text = make(box, "div", "bt-text bt-tokens");
        text.dir = "auto";
        seen.tokens.forEach((token, index) => textToken(text, token, index));
    });
}

// White space stays as it is, but a line break also shows its sign, so that it can be pointed at.
function textToken(text, token, index) {
    const made = make(text, "span", index < view.seen.rows ? "" : "bt-unread", token.replace(/\n/g, "↵\n"));
    if (index >= view.seen.prompt_tokens) made.classList.add("bt-answered");
    made.dataset.token = index;
    if (index >= view.seen.rows) made.title = "The last token was written, but not read.";
}

// How strongly a token is looked at, from 0 to 1, on one scale for all passes.
function shadeTexts(row) {
    const { rows } = view.seen, skip = part("without-first").checked ? 1 : 0;
    const all = view.panels.slice(0, view.seen.passes.length).map((panel) => panel.weights.subarray(row * rows, (row + 1) * rows));
    const most = Math.max(...all.flatMap((weights) => [...weights.subarray(skip)])) || 1;
    part("texts").querySelectorAll(".bt-tokens").forEach((text, place) => {
        for (const made of text.children) {
            const token = Number(made.dataset.token);
            const weight = token < skip || token >= rows ? 0 : all[place][token] / most;
            made.style.setProperty("--look", Math.round(Math.sqrt(weight) * 100) + "%");
            made.classList.toggle("bt-looking", token === row);
            made.tabIndex = token === row ? 0 : -1;
        }
    });
}

function tokenOf(event) {
    const token = Number(event.target.dataset.token ?? NaN);
    return token < view.seen?.rows ? token : null;
}

new ResizeObserver(() => {
    labelMaps();
    if (view.picture) point(view.pointed);
}).observe(part("maps"));
part("texts").addEventListener("pointerover", (event) => {
    if (tokenOf(event) !== null) point({ row: tokenOf(event) });
});
part("texts").addEventListener("pointerleave", () => view.seen && point(null));
part("texts").addEventListener("click", (event) => {
    if (tokenOf(event) !== null) pin(tokenOf(event));
});
part("texts").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key], token = tokenOf(event);
    if (!step || token === null || token + step < 0 || token + step >= view.seen.rows) return;
    event.preventDefault();
    pin(token + step);
    event.target.parentElement.children[token + step].focus();
});
