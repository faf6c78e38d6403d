// The tab Attention in the browser: what is open, what is pointed at, and what has to be fetched. All text is set as text.

const part = (name) => element.querySelector('[data-part="' + name + '"]');
const NOTHING = "Nothing has been read yet. Press Read: the passes run once, and every layer and head can then be opened.";
const view = { seen: null, picture: null, panels: [], pictures: new Map(), asked: 0, pinned: 0, pointed: null, wished: null };

function make(parent, tag, css, text) {
    const made = document.createElement(tag);
    if (css) made.className = css;
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
}

function options(select, entries) {
    const before = select.value;
    select.replaceChildren();
    for (const [value, text] of entries) make(select, "option", "", text).value = value;
    if (entries.some(([value]) => String(value) === before)) select.value = before;
}

function tell(problem) {
    part("problem").textContent = problem || "";
    part("problem").hidden = !problem;
}

// What the server sent after Read: words, a problem, or maps.
function show(value) {
    const answer = value && typeof value === "object" ? value : { words: NOTHING };
    tell(answer.problem);
    part("words").textContent = answer.words || "";
    part("words").hidden = !answer.words;
    part("view").hidden = !answer.key;
    if (answer.look) Object.assign(view, { wished: answer.look, picture: null });
    if (!answer.key) return;
    const wished = view.wished || {};
    Object.assign(view, { seen: answer, pictures: new Map(), asked: view.asked + 1, pointed: null });
    view.pinned = answer.prompt_rows;
    keep(answer.picture);
    const passes = answer.passes.map((pass, place) => [place, pass.title.toLowerCase()]);
    options(part("which"), passes.length > 1 ? [...passes.reverse(), ["difference", "difference of the readings"]] : passes);
    options(part("bertviz-reading"), answer.passes.map((pass) => [pass.name, pass.title.toLowerCase()]));
    part("bertviz").replaceChildren();
    part("variant").textContent = answer.variant.name;
    element.querySelector(".bt-open").className = "bt-open bt-v" + answer.variant.colour;
    if (view.wished) takeChoices(wished);
    if (passes.length === 1 && part("measure").value === "look_ahead") part("measure").value = "distance";
    buildGrid();
    buildMaps();
    buildTexts();
    draw(answer.picture);
    view.wished = null;
    openWished(wished);
}

// The overview ------------------------------------------------------------------------------------------------------

function mean(values) {
    return values.reduce((sum, value) => sum + value, 0) / values.length;
}

// [layer][head], the mean over heads last; a difference is second minus first.
function measured() {
    const all = view.seen.measures[part("measure").value], which = part("which").value;
    const rows = which === "difference"
        ? all[1].map((row, layer) => row.map((value, head) => value - all[0][layer][head]))
        : all[Number(which)];
    return rows.map((row) => [...row, mean(row)]);
}

function buildGrid() {
    const { layers, heads } = view.seen, grid = part("grid");
    grid.replaceChildren();
    grid.style.setProperty("--heads", heads);
    const names = make(grid, "div", "bt-head-row bt-head-names");
    names.setAttribute("role", "row");
    for (const name of ["layer", ...Array(heads).keys(), "all"]) make(names, "span", "", name).setAttribute("role", "columnheader");
    for (let layer = 0; layer < layers; layer++) {
        const row = make(grid, "div", "bt-head-row");
        row.setAttribute("role", "row");
        make(row, "span", "", layer).setAttribute("role", "rowheader");
        for (let head = 0; head <= heads; head++) {
            const cell = make(row, "button", head === heads ? "bt-mean" : "");
            Object.assign(cell, { type: "button", tabIndex: -1 });
            Object.assign(cell.dataset, { layer, head });
            cell.setAttribute("role", "gridcell");
        }
    }
    colourGrid();
}

function cellOf(layer, head) {
    return part("grid").querySelector('[data-layer="' + layer + '"][data-head="' + (head ?? view.seen.heads) + '"]');
}

function colourGrid() {
    const values = measured(), colours = palette(), which = part("which").value, measure = part("measure");
    const most = Math.max(...values.flat().map(Math.abs)), pass = view.seen.passes[Number(which)];
    const second = which !== "difference" && Number(which) === 1;
    const ink = which === "difference" ? ["causal", "bidirectional"] : [second ? "bidirectional" : pass.attention];
    for (const cell of part("grid").querySelectorAll("button")) {
        const { layer, head } = cell.dataset, value = values[layer][head];
        // Here the share itself: neighbours are compared, and none hides the others.
        const share = most === 0 ? 0 : (value / most) ** 2 * Math.sign(value);
        cell.style.background = css(colourOf(share, 1, ink, colours));
        const name = "layer " + layer + ", " + (Number(head) === view.seen.heads ? "mean over heads" : "head " + head);
        cell.title = name + ": " + value.toFixed(2);
        cell.setAttribute("aria-label", cell.title);
    }
    part("measure-words").textContent = MEASURES[measure.value];
    legend(part("grid-legend"), most, ink, colours, (value) => value.toFixed(2));
}

function legend(place, most, ink, colours, write) {
    const steps = [0, 0.25, 0.5, 0.75, 1].map((share) => css(between(colours.sheet, colours[ink[ink.length - 1]], share * share)));
    const left = ink.length === 2 ? [1, 0.75, 0.5, 0.25].map((share) => css(between(colours.sheet, colours[ink[0]], share * share))) : [];
    place.replaceChildren();
    make(place, "span", "", ink.length === 2 ? "−" + write(most) : write(0));
    make(place, "i").style.background = "linear-gradient(90deg," + [...left, ...steps].join(",") + ")";
    make(place, "span", "", (ink.length === 2 ? "+" : "") + write(most));
}

function walk(event) {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!steps || !event.target.dataset.layer) return;
    const next = cellOf(Number(event.target.dataset.layer) + steps[0], Number(event.target.dataset.head) + steps[1]);
    event.preventDefault();
    if (!next) return;
    next.focus();
    open(next);
}

// Opening a head ----------------------------------------------------------------------------------------------------

function keep(picture) {
    view.pictures.set(picture.layer + "/" + picture.head, picture);
}

async function open(cell) {
    const layer = Number(cell.dataset.layer), place = Number(cell.dataset.head);
    const head = place === view.seen.heads ? null : place, asked = ++view.asked;
    const kept = view.pictures.get(layer + "/" + head);
    const picture = kept || await server.picture({ key: view.seen.key, layer, head });
    if (asked !== view.asked) return; // another head was opened meanwhile
    tell(picture.problem);
    if (picture.problem) return;
    keep(picture);
    draw(picture);
}

function titleOf(picture) {
    return "Layer " + picture.layer + ", " + (picture.head === null ? "mean over heads" : "head " + picture.head);
}

function draw(picture) {
    view.picture = picture;
    for (const cell of part("grid").querySelectorAll("[aria-current]")) cell.removeAttribute("aria-current");
    for (const cell of part("grid").querySelectorAll('button[tabindex="0"]')) cell.tabIndex = -1;
    const cell = cellOf(picture.layer, picture.head);
    cell.setAttribute("aria-current", "true");
    cell.tabIndex = 0;
    part("title").textContent = titleOf(picture);
    paintMaps();
}

function paintMaps() {
    const { seen, picture } = view, withoutFirst = part("without-first").checked, colours = palette();
    view.panels = panelsOf(seen, picture, withoutFirst);
    element.querySelectorAll(".bt-map canvas").forEach((canvas, place) => paint(canvas, view.panels[place], seen, withoutFirst, colours));
    element.querySelectorAll(".bt-map .bt-see-legend").forEach((place, number) => {
        const { most, ink } = view.panels[number];
        legend(place, most, ink, colours, percent);
    });
    point(view.pointed);
}

part("measure").addEventListener("change", colourGrid);
part("which").addEventListener("change", colourGrid);
part("without-first").addEventListener("change", paintMaps);
part("grid").addEventListener("keydown", walk);
part("grid").addEventListener("click", (event) => {
    if (event.target.dataset.layer) open(event.target);
});
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    if (!view.seen || !element.isConnected) return;
    colourGrid();
    paintMaps();
});
