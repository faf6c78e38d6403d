// What a row looks at: in words, and as shades on the text.

const BESIDE_PIN = "Point at another word or cell to have it beside what is pinned.";

function readOut(at) {
    const { pinned } = view, pointed = at || (pinned ? null : resting());
    if (pointed) writeOut(part("readout"), pointed.row, pointed.column);
    else part("readout").textContent = BESIDE_PIN;
    part("pinned").hidden = !pinned;
    if (part("large").open) part("large-words").replaceChildren(...part("readout").cloneNode(true).childNodes);
    if (pinned) writeOut(part("pinned-words"), pinned.row, pinned.column, "Pinned: ");
}

function writeOut(place, row, column, before = "") {
    const { seen } = view, name = (token) => "“" + seen.labels[token] + "”";
    place.replaceChildren();
    make(place, "b", "", before + name(row) + (column === undefined ? " looks most at" : " looks at " + name(column)));
    for (const panel of sides()) {
        const line = make(place, "span", "bt-ink-" + panel.ink[0]);
        const blind = column !== undefined && hidden(panel, row, column, seen.prompt_rows);
        const weight = column === undefined ? looksAt(panel, row) : percent(panel.weights[row * seen.rows + column]);
        make(line, "i", "");
        make(line, "span", "", panel.calls(row) + ": " + (blind ? "cannot look there" : weight));
    }
}

// The panels but for the difference.
function sides() {
    return view.panels.filter((panel) => panel.calls);
}

function looksAt(panel, row) {
    const { rows, labels: names } = view.seen, skip = part("without-first").checked ? 1 : 0;
    const weights = [...panel.weights.subarray(row * rows, (row + 1) * rows)].map((weight, token) => [weight, token]).slice(skip);
    const most = weights.sort((a, b) => b[0] - a[0]).slice(0, 3).filter(([weight]) => weight > 0);
    return most.map(([weight, token]) => "“" + names[token] + "” " + percent(weight)).join(", ") || "nothing";
}

function buildTexts() {
    const { seen } = view, place = part("texts");
    place.replaceChildren();
    for (const { title, ink } of sidesOf(seen, view.picture)) {
        const box = make(place, "div", "bt-reading bt-ink-" + ink);
        make(box, "b", "", title);
        const text = make(box, "div", "bt-text bt-tokens");
        text.dir = "auto";
        seen.tokens.forEach((token, index) => textToken(text, token, index));
    }
}

// A character of several tokens stands in its first one; each of them has its number, which is no text, so that it is not copied.
function pieceIn(made, [character, piece]) {
    made.textContent = piece === 1 ? character : "";
    made.dataset.piece = piece;
}

// White space stays as it is, but a line break also shows its sign, so that it can be pointed at.
function textToken(text, token, index) {
    const made = make(text, "span", index < view.seen.rows ? "" : "bt-unread", token.replace(/\n/g, "↵\n"));
    if (index > view.seen.prompt_rows) made.classList.add("bt-answered");
    if (view.seen.pieces[index]) pieceIn(made, view.seen.pieces[index]);
    made.dataset.token = index;
    if (index >= view.seen.rows) made.title = "The last token was written, but not read.";
}

// How strongly a token is looked at, from 0 to 1, on one scale for all passes.
function shadeTexts(row) {
    const { rows } = view.seen, skip = part("without-first").checked ? 1 : 0;
    const all = sides().map((panel) => panel.weights.subarray(row * rows, (row + 1) * rows));
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
    const token = Number(event.target.closest("[data-token]")?.dataset.token ?? NaN);
    return token < view.seen?.rows ? token : null;
}

part("texts").addEventListener("pointerover", (event) => {
    if (tokenOf(event) !== null) point({ row: tokenOf(event) });
});
part("texts").addEventListener("pointerleave", () => view.seen && point(null));
part("texts").addEventListener("click", (event) => {
    if (tokenOf(event) !== null) pin({ row: tokenOf(event) });
});
part("texts").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key], token = tokenOf(event);
    if (!step || token === null || token + step < 0 || token + step >= view.seen.rows) return;
    event.preventDefault();
    point({ row: token + step });
    event.target.closest(".bt-tokens").children[token + step].focus();
});
