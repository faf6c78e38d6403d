// Downloads and BertViz; then the first look at what is there already.

function openFigure() {
    const style = getComputedStyle(element), colours = palette();
    const look = { colours, ink: style.getPropertyValue("--bt-ink").trim(), paper: style.getPropertyValue("--bt-paper").trim() };
    const names = pairOf(view.picture) === "readings" ? [view.seen] : [view.seen, view.seen.beside];
    const title = names.map((of) => of.variant.name).join(" and ") + ": " + titleOf(view.picture).toLowerCase();
    return figureOf(view.seen, view.panels, title, part("without-first").checked, look);
}

function fileName(ending) {
    const { layer, until, head } = view.picture;
    if (until !== undefined) return "attention-layers-" + layer + "-to-" + until + "-mean." + ending;
    return "attention-layer-" + layer + "-" + (head === null ? "mean" : "head-" + head) + "." + ending;
}

async function saveArrays() {
    const file = await server.arrays({ key: view.seen.key, layer: view.picture.layer });
    tell(file.problem);
    if (!file.problem) save(bytesOf(file.data), "application/octet-stream", file.name);
}

// The frame may run its own script and nothing else: no access to this page, no address.
async function drawBertviz() {
    const words = part("bertviz-words"), place = part("bertviz");
    place.replaceChildren();
    words.textContent = "Drawing …";
    const { layer, head } = view.picture;
    const chosen = { view: part("bertviz-view").value, pass_name: part("bertviz-reading").value };
    const dark = element.closest(".dark") !== null;
    const question = { key: view.seen.key, layer, head, ...chosen, dark };
    const answer = await server.frame(question);
    if (!answer.html) {
        words.textContent = answer.problem || answer.words;
        return;
    }
    const frame = document.createElement("iframe");
    frame.setAttribute("sandbox", "allow-scripts");
    frame.title = "BertViz";
    frame.srcdoc = answer.html;
    frame.addEventListener("load", () => (words.textContent = answer.words));
    place.append(frame);
}

part("png").addEventListener("click", () => savePng(openFigure(), fileName("png")));
part("svg").addEventListener("click", () => save(openFigure(), "image/svg+xml", fileName("svg")));
part("arrays").addEventListener("click", saveArrays);
part("bertviz-draw").addEventListener("click", drawBertviz);

watch("value", () => show(JSON.parse(props.value)));
show(JSON.parse(props.value));
