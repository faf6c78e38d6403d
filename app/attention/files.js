// The open figure as a file: an SVG drawn from the same panels, and a PNG made of that SVG. Text goes in as text nodes only.

const SVG = "http://www.w3.org/2000/svg";
const SIDE = 420, LEFT = 96, TOP = 130, GAP = 36;

function node(parent, name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    // XML has no place for these signs, not even escaped.
    if (text !== undefined) made.textContent = text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "\ufffd");
    parent.append(made);
    return made;
}

// Squares of one colour are one path, so that a large map stays a small file.
function cellsOf(group, panel, seen, withoutFirst, colours) {
    const size = SIDE / seen.rows, paths = new Map();
    const side = (size + 0.02).toFixed(2); // a hair more, so that rounding leaves no seam
    for (let place = 0; place < panel.weights.length; place++) {
        const row = Math.floor(place / seen.rows), column = place % seen.rows;
        const left = (withoutFirst && column === 0) || hidden(panel, row, column, seen.prompt_rows);
        const colour = css(left ? colours.unseen : colourOf(panel.weights[place], panel.most, panel.ink, colours));
        const square = "M" + (column * size).toFixed(2) + " " + (row * size).toFixed(2) + "h" + side + "v" + side + "h-" + side + "z";
        paths.set(colour, (paths.get(colour) || "") + square);
    }
    node(group, "rect", { width: SIDE, height: SIDE, fill: css(colours.sheet) });
    paths.delete(css(colours.sheet));
    for (const [fill, d] of paths) node(group, "path", { d, fill, "shape-rendering": "crispEdges" });
}

function labelsOf(group, seen, step, withRows) {
    const size = SIDE / seen.rows, font = { "font-size": 10 };
    for (let token = 0; token < seen.rows; token += step) {
        const middle = (token + 0.5) * size, name = short(seen.labels[token]);
        if (withRows) node(group, "text", { x: -6, y: middle + 3.5, "text-anchor": "end", ...font }, name);
        node(group, "text", { transform: "translate(" + (middle + 3.5) + " -6) rotate(-90)", ...font }, name);
    }
}

function short(text) {
    const signs = [...text];
    return signs.length > 14 ? signs.slice(0, 13).join("") + "…" : text;
}

// The scale of a panel below it: without one a map says only where, not how much.
function scaleOf(group, panel, place, colours) {
    const id = "scale-" + place, gradient = node(group, "linearGradient", { id });
    const stops = scaleSteps(panel.ink, colours), two = panel.ink.length === 2;
    stops.forEach((colour, step) => node(gradient, "stop", { offset: step / (stops.length - 1), "stop-color": colour }));
    node(group, "text", { y: SIDE + 27, "font-size": 11 }, two ? "−" + percent(panel.most) : percent(0));
    node(group, "rect", { x: 52, y: SIDE + 18, width: 140, height: 10, fill: "url(#" + id + ")", stroke: css(colours.unseen) });
    node(group, "text", { x: 200, y: SIDE + 27, "font-size": 11 }, (two ? "+" : "") + percent(panel.most));
}

function figureOf(seen, panels, title, withoutFirst, look) {
    const width = LEFT + panels.length * (SIDE + GAP), height = TOP + SIDE + 66;
    const figure = document.createElementNS(SVG, "svg");
    figure.setAttribute("viewBox", "0 0 " + width + " " + height);
    figure.setAttribute("width", width);
    figure.setAttribute("height", height);
    figure.setAttribute("font-family", "system-ui, sans-serif");
    figure.setAttribute("fill", look.ink);
    node(figure, "rect", { width, height, fill: look.paper });
    node(figure, "text", { x: LEFT, y: 24, "font-size": 15, "font-weight": 600 }, title);
    panels.forEach((panel, place) => {
        const group = node(figure, "g", { transform: "translate(" + (LEFT + place * (SIDE + GAP)) + " " + TOP + ")" });
        node(group, "text", { y: -82, "font-size": 13, "font-weight": 600 }, panel.title);
        cellsOf(group, panel, seen, withoutFirst, look.colours);
        labelsOf(group, seen, everyNth(seen.rows, SIDE), place === 0);
        scaleOf(group, panel, place, look.colours);
    });
    const words = "Rows look at columns. Each scale is that of its map; a colour grows with the square root of the weight.";
    node(figure, "text", { x: LEFT, y: height - 12, "font-size": 11 }, words + (withoutFirst ? " The first token is left out." : ""));
    return new XMLSerializer().serializeToString(figure);
}

function save(content, type, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

async function savePng(figure, name) {
    const image = new Image();
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(figure);
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = image.width * 2;
    canvas.height = image.height * 2;
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => save(blob, "image/png", name), "image/png");
}
