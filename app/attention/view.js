// The tab Attention in the browser: what is open, what is pointed at, and what has to be fetched. All text is set as text.

const part = (name) => element.querySelector('[data-part="' + name + '"]');
const NOTHING = "Nothing has been read yet. Press Read: the passes run once, and every layer and head can then be opened.";
const view = { seen: null, picture: null, panels: [], pictures: new Map(), asked: 0, pinned: null, pointed: null, wished: null, figures: [] };

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
    part("view").hidden = !answer.picture;
    part("recorded").hidden = !answer.recorded;
    part("recorded-words").textContent = answer.recorded || "";
    for (const live of element.querySelectorAll("[data-live]")) live.hidden = !answer.key;
    if (answer.look) Object.assign(view, { wished: answer.look, picture: null });
    if (!answer.picture) return;
    const wished = view.wished || {};
    Object.assign(view, { seen: answer, pictures: new Map(), asked: view.asked + 1, pointed: null, pinned: null });
    view.picture = keep(together(answer.picture, answer.beside?.picture));
    const passes = answer.passes.map((pass, place) => [place, pass.title.toLowerCase()]);
    const other = answer.beside ? [["beside", "difference to " + answer.beside.variant.name]] : [];
    const difference = passes.length > 1 ? [["difference", "difference of the readings"]] : [];
    options(part("which"), [...passes.reverse(), ...difference, ...other]);
    offerPairs(answer);
    offerLayers(answer.layers);
    const whose = answer.beside ? " of " + answer.variant.name : "";
    options(part("bertviz-reading"), answer.passes.map((pass) => [pass.name, pass.title.toLowerCase() + whose]));
    part("bertviz").replaceChildren();
    part("variant").textContent = answer.variant.name;
    element.querySelector(".bt-open").className = "bt-open bt-v" + answer.variant.colour;
    if (view.wished) takeChoices(wished);
    if (passes.length === 1 && part("measure").value === "look_ahead") part("measure").value = "distance";
    buildGrid();
    buildMaps();
    buildTexts();
    draw(view.picture);
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
    const less = (rows, others) => rows.map((row, layer) => row.map((value, head) => value - others[layer][head]));
    const rows = which === "difference" ? less(all[1], all[0]) : which === "beside" ? less(...besideMeasures()) : all[Number(which)];
    return rows.map((row) => [...row, mean(row)]);
}

// Of the other variant and of this one, in the readings that the maps show.
function besideMeasures() {
    const chosen = part("pair").value, { seen } = view;
    return [seen.beside, seen].map((of) => {
        const all = of.measures[part("measure").value];
        return all[chosen === "readings" ? all.length - 1 : Math.min(Number(chosen), all.length - 1)];
    });
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
    const apart = { difference: READINGS, beside: view.seen.beside && variantsOf(view.seen) }[which];
    const ink = apart || [which === "1" ? "bidirectional" : pass.attention];
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
    legend(part("grid-legend"), most, ink, colours, (value) => value.toFixed(2), true);
}

function legend(place, most, ink, colours, write, linear = false) {
    place.replaceChildren();
    make(place, "span", "", ink.length === 2 ? "−" + write(most) : write(0));
    make(place, "i").style.background = "linear-gradient(90deg," + scaleSteps(ink, colours, linear).join(",") + ")";
    make(place, "span", "", (ink.length === 2 ? "+" : "") + write(most));
}

function walk(event) {
    const { layer, head } = event.target.dataset, { layers, heads } = view.seen;
    if (!layer) return;
    const at = { row: Number(layer), column: Number(head) }, next = stepped(event, at, layers, heads + 1);
    if (!next) return;
    event.preventDefault();
    const cell = cellOf(next.row, next.column);
    cell.focus();
    if (cell !== event.target) open(cell);
}

// Opening a head ----------------------------------------------------------------------------------------------------

function placeName({ layer, until, head }) {
    return [layer, until, head].join("/");
}

function keep(picture) {
    view.pictures.set(placeName(picture), picture);
    return picture;
}

// The same place of both variants as one picture, or the problem of either.
function together(picture, other) {
    if (!other || picture.problem) return picture;
    return other.problem ? other : { ...picture, beside: other.maps };
}

async function ask(place) {
    const { key, beside } = view.seen, question = (of) => server.picture({ key: of, ...place });
    if (!key) return { problem: "Only this one map was recorded. Press Read to read the prompt with what is loaded here." };
    return together(...(await Promise.all([question(key), beside && question(beside.key)])));
}

function open(cell) {
    const place = Number(cell.dataset.head);
    return openMap({ layer: Number(cell.dataset.layer), head: place === view.seen.heads ? null : place });
}

async function openMap(place) {
    const asked = ++view.asked, picture = view.pictures.get(placeName(place)) || (await ask(place));
    if (asked !== view.asked) return; // another head was opened meanwhile
    tell(picture.problem);
    if (picture.problem) return;
    draw(keep(picture));
}

function offerLayers(layers) {
    const all = [...Array(layers).keys()].map((layer) => [layer, layer]), until = part("mean-until");
    options(part("mean-from"), all);
    options(until, all);
    if (part("mean-from").value === "0" && until.value === "0") until.value = layers - 1;
}

function openMean() {
    const [layer, until] = ["mean-from", "mean-until"].map((name) => Number(part(name).value)).sort((a, b) => a - b);
    openMap({ layer, until, head: null });
}

function titleOf({ layer, until, head }) {
    if (until !== undefined) return "Layers " + layer + " to " + until + ", mean over heads";
    return "Layer " + layer + ", " + (head === null ? "mean over heads" : "head " + head);
}

function draw(picture) {
    view.picture = picture;
    for (const cell of part("grid").querySelectorAll("[aria-current]")) cell.removeAttribute("aria-current");
    for (const cell of part("grid").querySelectorAll('button[tabindex="0"]')) cell.tabIndex = -1;
    const last = picture.until ?? picture.layer;
    for (let layer = picture.layer; layer <= last; layer++) cellOf(layer, picture.head).setAttribute("aria-current", "true");
    cellOf(picture.layer, picture.head).tabIndex = 0;
    part("title").textContent = titleOf(picture);
    part("arrays").hidden = !view.seen.key || picture.until !== undefined;
    paintMaps();
}

function paintMaps() {
    const { seen, picture } = view, withoutFirst = part("without-first").checked, colours = palette();
    view.panels = panelsOf(seen, picture, withoutFirst);
    view.figures.forEach((figure, place) => {
        const panel = view.panels[place];
        paint(figure.querySelector("canvas"), panel, seen, withoutFirst, colours);
        legend(figure.querySelector(".bt-see-legend"), panel.most, panel.ink, colours, percent);
    });
    point(view.pointed);
}

part("measure").addEventListener("change", colourGrid);
part("which").addEventListener("change", colourGrid);
part("without-first").addEventListener("change", paintMaps);
part("mean-open").addEventListener("click", openMean);
part("grid").addEventListener("keydown", walk);
part("grid").addEventListener("click", (event) => {
    if (event.target.dataset.layer) open(event.target);
});
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    if (!view.seen || !element.isConnected) return;
    colourGrid();
    paintMaps();
});
