// Which maps stand beside each other: the readings of one variant, or two variants, and what each of them is called.

const ANSWERING = ["without the second reading", "with both readings mixed"];

// "readings", or which reading of two variants, as a number.
function pairOf(picture) {
    return picture.beside ? part("pair").value : "readings";
}

function offerPairs({ variant, passes, beside }) {
    part("pair-choice").hidden = part("beside").hidden = !beside;
    options(part("pair"), []);
    if (!beside) return;
    const both = variant.name + " and " + beside.variant.name, two = passes.length > 1 || beside.passes.length > 1;
    const pairs = two ? [["1", both + ", as they read at last"], ["0", both + ", first readings"]] : [["0", both]];
    options(part("pair"), [...pairs, ["readings", "the readings of " + variant.name]]);
    part("beside-name").textContent = beside.variant.name;
    part("beside").className = "bt-chip bt-v" + beside.variant.colour;
}

function sidesOf(seen, picture) {
    const pair = pairOf(picture);
    if (pair === "readings") return seen.passes.map((pass, place) => sideOf(seen, picture.maps, place, pass.title, pass.about));
    return [[seen, picture.maps], [seen.beside, picture.beside]].map(([of, maps]) => {
        const place = Math.min(Number(pair), of.passes.length - 1), pass = of.passes[place];
        return sideOf(of, maps, place, of.variant.name, pass.title.toLowerCase() + ": " + pass.about);
    });
}

// `calls`: what a row is called in the readout.
function sideOf(of, maps, place, title, about) {
    const pass = of.passes[place], ink = place && pass.attention === "causal" ? "bidirectional" : pass.attention;
    const two = of.passes.length > 1, apart = title === of.variant.name ? title + ", " : "";
    const reading = two ? (place ? "second reading" : "first reading") : "reading", answering = two ? ANSWERING[place] : "answering";
    return { map: maps[place], title, about, ink, sees: pass.attention, calls: (row) => apart + (row >= of.prompt_rows ? answering : reading) };
}

// The two ends of a difference: of the readings, whose colours are the same everywhere, or of two variants, which may both be shown in blue.
const READINGS = ["causal", "bidirectional"];
const variantsOf = (seen) => [seen, seen.beside].map((of) => "variant" + of.variant.colour);

// The panels of a picture: two sides on one scale, and their difference on its own; or the one that there is.
function panelsOf(seen, picture, withoutFirst) {
    const sides = sidesOf(seen, picture), weights = sides.map((side) => unpacked(side.map, seen.rows));
    const most = Math.max(...weights.map((map) => largest(map, seen.rows, withoutFirst)));
    const panels = sides.map(({ title, about, ink, sees, calls }, place) => ({
        title, about, calls, weights: weights[place], most, ink: [ink], sees: [sees],
    }));
    if (panels.length < 2) return panels;
    const difference = weights[1].map((weight, place) => weight - weights[0][place]);
    const readings = pairOf(picture) === "readings";
    const about = readings ? "blue: more in the first; orange: more in the second" : "in the colour of the variant that looks more";
    panels.push({
        title: "Difference", about, weights: difference,
        most: largest(difference, seen.rows, withoutFirst), ink: readings ? READINGS : variantsOf(seen), sees: panels.flatMap((panel) => panel.sees),
    });
    return panels;
}

function rebuild() {
    buildMaps();
    buildTexts();
    paintMaps();
    colourGrid();
}

part("pair").addEventListener("change", rebuild);
