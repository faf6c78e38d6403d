// The tokens of the answers in the browser: the step that is open, drawn as text alone; clicks and keys; the numbers as a file.

const place = (name) => element.querySelector('[data-part="' + name + '"]');
let drawn = null, open = null, asked = null, seen = {};
const BUTTONS = { "bt-look-tokens": "tokens", "bt-layers-run": "layers", "bt-lens-run": "lens" };

const percent = (value) => {
    const chance = 100 * Math.exp(value);
    return chance >= 0.1 ? chance.toFixed(1) + " %" : "under 0.1 %";
};

function made(parent, tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
}

function chip(parent, view) {
    const node = made(parent, "span", "bt-chip bt-v" + view.colour + (view.what_if ? " bt-what-if" : ""));
    made(node, "i");
    node.append(view.name);
}

// One line of a distribution: a bar, the token, its probability. A press goes on from there.
function line(list, token, value, rank, said, go) {
    const item = made(list, "li", said ? "bt-said" : "");
    const button = made(item, "button");
    button.type = "button";
    button.style.setProperty("--chance", Math.exp(value).toFixed(4));
    made(button, "code", "", seen.labels[token]);
    made(button, "span", "", (rank === null ? "" : "no. " + (rank + 1) + ", ") + percent(value));
    button.addEventListener("click", go);
}

function distribution(parent, answer, view, at) {
    const { data } = seen, scores = data.scores[answer][view.name], said = data.answers[answer].tokens[at].id;
    const column = made(parent, "div", "bt-distribution bt-v" + view.colour);
    chip(column, view);
    const list = made(column, "ol");
    const go = (token) => () => trigger("select", { chosen: { variant: view.name, answer, place: at, token } });
    for (const [token, value] of scores.top[at]) line(list, token, value, null, token === said, go(token));
    const isThere = scores.top[at].some(([token]) => token === said);
    if (!isThere) line(list, said, scores.tokens[at], scores.ranks[at], true, go(said));
}

function show(number, at) {
    const { data, answers, views } = seen, answer = answers[number], tokens = data.answers[answer].tokens;
    open = { number, at };
    for (const button of element.querySelectorAll(".bt-strip button")) {
        const isOpen = Number(button.dataset.answer) === number && Number(button.dataset.place) === at;
        if (isOpen) button.setAttribute("aria-current", "true");
        else button.removeAttribute("aria-current");
        button.tabIndex = isOpen ? 0 : -1;
    }
    const step = place("step");
    step.replaceChildren();
    place("step-name").textContent = "Token " + (at + 1) + " of " + tokens.length + " in the answer of " + answer;
    const before = tokens.slice(Math.max(0, at - 12), at).map((token) => token.text).join("");
    const words = made(step, "p", "bt-about", at ? "What each variant would say behind " : "What each variant would say first. ");
    if (at) {
        made(words, "q", "", (at > 12 ? "…" : "") + before).dir = "auto";
        words.append(". ");
    }
    words.append("The token that is there is marked. Press one, and that variant goes on from it. " + seen.notation);
    const row = made(step, "div", "bt-distributions");
    for (const view of views) distribution(row, answer, view, at);
}

// Where an arrow leads: to its side on the screen, so that in a text from right to left the left one goes on.
function moved(key, isRightToLeft) {
    const { data, answers } = seen, last = data.answers[answers[open.number]].tokens.length - 1;
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key] * (isRightToLeft ? -1 : 1);
    return step ? Math.min(Math.max(open.at + step, 0), last) : { Home: 0, End: last }[key];
}

function save() {
    const blob = new Blob([JSON.stringify(seen.data, null, 1)], { type: "application/json" });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = "why-they-part.json";
    link.click();
    URL.revokeObjectURL(link.href);
}

element.addEventListener("click", (event) => {
    const token = event.target.closest("button[data-place]");
    if (token) show(Number(token.dataset.answer), Number(token.dataset.place));
    if (event.target.closest('[data-part="save"]')) save();
});

element.addEventListener("keydown", (event) => {
    const row = event.target.closest(".bt-strip .bt-text");
    const to = row && open ? moved(event.key, getComputedStyle(row).direction === "rtl") : undefined;
    if (to === undefined) return;
    event.preventDefault();
    show(open.number, to);
    element.querySelector(".bt-strip button[aria-current]").focus();
});

// What is looked at, as links carry it: the part that was asked last, and the step that is open.
document.addEventListener("click", (event) => {
    asked = BUTTONS[event.target.closest("button")?.id] || asked;
});
document.addEventListener("bt-say", (event) => {
    if (!element.isConnected) return;
    const step = drawn && open ? { token_of: seen.answers[open.number], token: open.at } : {};
    event.detail.compare = { looked: { ...(asked ? { panel: asked } : {}), ...step } };
});

function draw() {
    seen = JSON.parse(props.value);
    const body = place("tokens");
    if (seen.html === undefined) {
        drawn = null;
        body.replaceChildren();
        if (seen.words) made(body, "p", "bt-empty", seen.words);
        if (seen.problem) made(body, "p", "bt-problem", seen.problem).setAttribute("role", "alert");
    } else if (seen.html !== drawn) {
        body.innerHTML = drawn = seen.html;
        show(seen.opened.answer, seen.opened.place);
    }
}

watch("value", draw);
draw();
