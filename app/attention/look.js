// What is looked at in a result, as links carry it: said when the page asks for it, and taken when maps come after a link was opened.

const LOOKS = { pair: "pair", measure: "measure", which: "which", bertviz_view: "bertviz-view", bertviz_reading: "bertviz-reading" };

function look() {
    if (!view.picture || view.seen.recorded) return view.wished || {};
    const chosen = Object.entries(LOOKS).map(([name, place]) => [name, part(place).value]);
    const { layer, until, head } = view.picture, without_first = part("without-first").checked;
    const place = { layer, ...(until === undefined ? {} : { until }), ...(head === null ? {} : { head }) };
    return { ...Object.fromEntries(chosen.filter(([, value]) => value)), without_first, ...place };
}

// What has no choice of that name stays as it is.
function takeChoices(wished) {
    for (const [name, place] of Object.entries(LOOKS)) {
        const choices = [...part(place).options].map((option) => option.value);
        if (choices.includes(wished[name])) part(place).value = wished[name];
    }
    if (wished.without_first !== undefined) part("without-first").checked = wished.without_first;
}

function openWished({ layer, until, head }) {
    if (layer === undefined) return;
    if (until !== undefined && until < view.seen.layers) return openMap({ layer, until, head: null });
    const cell = cellOf(layer, head), { layers, heads } = view.seen;
    if (cell) return open(cell);
    tell("The link opens layer " + layer + ", head " + (head ?? "all") + "; this base has layers 0 to " + (layers - 1) + " and heads 0 to " + (heads - 1) + ".");
}

document.addEventListener("bt-say", (event) => {
    if (element.isConnected) event.detail.attention = look();
});
