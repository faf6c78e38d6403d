// Colours and pixels of attention maps. Knows weights and canvases; nothing of the page around them.

const MEASURES = {
    look_ahead: "Share of attention on later tokens.",
    first_token: "Share of attention that rests on the first token.",
    distance: "How many tokens away a token looks, on average.",
    entropy: "Entropy in nats: 0 looks at one token, more at many.",
};

function bytesOf(text) {
    return Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
}

// A packed map as weights, row by row; the first column has a maximum of its own.
function unpacked(map, rows) {
    const first = bytesOf(map.first.data), rest = bytesOf(map.rest.data), width = rows - 1;
    const weights = new Float32Array(rows * rows);
    for (let row = 0; row < rows; row++) {
        weights[row * rows] = (map.first.most * first[row]) / 255;
        for (let column = 0; column < width; column++) {
            weights[row * rows + column + 1] = (map.rest.most * rest[row * width + column]) / 255;
        }
    }
    return weights;
}

const VARIANTS = 6; // colours of variants in style.css

function rgb(name) {
    const value = getComputedStyle(element).getPropertyValue(name).trim();
    return [1, 3, 5].map((place) => parseInt(value.slice(place, place + 2), 16));
}

function palette() {
    const colours = { sheet: rgb("--bt-sheet"), unseen: rgb("--bt-unseen"), causal: rgb("--bt-causal") };
    colours.bidirectional = colours.anticausal = rgb("--bt-bidirectional");
    for (const place of Array(VARIANTS).keys()) colours["variant" + place] = rgb("--bt-" + place);
    return colours;
}

// Small weights matter more to the eye than their share: the root spreads them.
function between(from, to, share) {
    const part = Math.sqrt(Math.min(1, Math.max(0, share)));
    return from.map((value, place) => Math.round(value + (to[place] - value) * part));
}

function css(colour) {
    return "rgb(" + colour.join(",") + ")";
}

// What a weight looks like: `ink` is one colour, or two where the sign chooses.
function colourOf(weight, most, ink, colours) {
    if (most === 0) return colours.sheet;
    const end = ink.length === 2 ? colours[ink[weight < 0 ? 0 : 1]] : colours[ink[0]];
    return between(colours.sheet, end, Math.abs(weight) / most);
}

// The colours of a scale from its left end to its right one, at equal steps of the value. `linear`: as the overview shows it, else as maps do.
function scaleSteps(ink, colours, linear = false) {
    const shares = [...Array(17).keys()].map((step) => step / 16);
    const side = (name) => shares.map((share) => css(between(colours.sheet, colours[name], linear ? share ** 2 : share)));
    const right = side(ink[ink.length - 1]);
    return ink.length === 2 ? [...side(ink[0]).reverse(), ...right.slice(1)] : right;
}

// Whether a pass could not look there at all: the mask of its attention, and tokens that come after the prompt.
function hidden(panel, row, column, promptRows) {
    if (row >= promptRows) return column > row;
    if (column >= promptRows) return true;
    return panel.sees.every((attention) =>
        attention === "causal" ? column > row : attention === "anticausal" ? column < row : false);
}

function largest(weights, rows, withoutFirst) {
    let most = 0;
    for (let place = 0; place < weights.length; place++) {
        if (withoutFirst && place % rows === 0) continue;
        most = Math.max(most, Math.abs(weights[place]));
    }
    return most;
}

// One pixel a weight; the page stretches it without smoothing.
function paint(canvas, panel, seen, withoutFirst, colours) {
    const { rows, prompt_rows: promptRows } = seen;
    canvas.width = canvas.height = rows;
    const context = canvas.getContext("2d"), image = context.createImageData(rows, rows);
    for (let row = 0; row < rows; row++) {
        for (let column = 0; column < rows; column++) {
            const place = row * rows + column;
            const left = (withoutFirst && column === 0) || hidden(panel, row, column, promptRows);
            const colour = left ? colours.unseen : colourOf(panel.weights[place], panel.most, panel.ink, colours);
            image.data.set([...colour, 255], place * 4);
        }
    }
    context.putImageData(image, 0, 0);
}

function percent(weight) {
    const value = Math.abs(weight) * 100;
    if (value === 0) return "0 %";
    if (value < 0.1) return "under 0.1 %";
    return value.toFixed(value < 9.95 ? 1 : 0) + " %";
}

// Which of `count` labels fit where each has `size` pixels.
function everyNth(count, size) {
    return Math.max(1, Math.ceil(11 / (size / count)));
}
