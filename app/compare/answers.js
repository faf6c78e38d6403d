// Compare's answers in the browser: the columns as the server draws them, what comes into them, set as text, and what can be done with them.

const MARKDOWN = "bt-markdown"; // in this browser: whether Markdown is shown as it is meant to look
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const kept = () => { try { return localStorage.getItem(MARKDOWN) === "yes"; } catch { return false; } };
let drawn = null, running = false;

function fillText(box, column) {
    const text = box.firstChild;
    box.classList.toggle("bt-running", column.running);
    if (column.silent) {
        if (box.textContent === column.silent) return;
        const words = document.createElement("span");
        words.className = "bt-silent";
        words.textContent = column.silent;
        box.replaceChildren(words);
    } else if (text instanceof Text && column.text.startsWith(text.data)) {
        const more = column.text.slice(text.data.length);
        if (more) text.appendData(more); // what somebody has selected stays selected
    } else {
        box.textContent = column.text;
    }
}

// What is drawn anew replaces the button that was pressed; whoever uses keys finds it again where it was.
function draw(html) {
    const pressed = element.contains(document.activeElement) ? document.activeElement.dataset.place : undefined;
    part("answers").innerHTML = html;
    drawn = html;
    if (pressed !== undefined) element.querySelector(`[data-place="${pressed}"]`)?.focus({ preventScroll: true });
    const choice = element.querySelector(".bt-as-markdown input");
    if (choice) choice.checked = kept();
    element.classList.toggle("bt-markdown", Boolean(choice?.checked));
}

function show({ html, live }) {
    if (html !== drawn) draw(html);
    const answers = element.querySelectorAll(".bt-answer");
    for (const [place, column] of (live.columns || []).entries()) {
        fillText(answers[place].querySelector(".bt-text"), column);
        const figures = answers[place].querySelectorAll("dd");
        for (const [which, words] of column.figures.entries()) {
            if (figures[which].textContent !== words) figures[which].textContent = words;
        }
    }
    const batch = element.querySelector(".bt-batch");
    if (live.columns && batch.textContent !== live.batch) batch.textContent = live.batch;
    tell(answers);
    reachable();
    setTimeout(stale, 200); // an example fills the prompt a moment after its answers are there
}

// A wait without a word of text says how long it has been.
let since = Date.now();

function count() {
    const seconds = Math.floor((Date.now() - since) / 1000);
    for (const words of element.querySelectorAll(".bt-running .bt-silent")) {
        words.dataset.seconds = seconds >= 2 ? ` ${seconds} s` : "";
    }
}

setInterval(count, 1000);

// Said to those who cannot see it: that answers are being written, and that they are there; not each word.
function tell(answers) {
    const now = element.querySelector(".bt-running") !== null;
    if (now && !running) since = Date.now();
    if (now && !running) part("said").textContent = "The answers are being written.";
    if (!now && running) part("said").textContent = answers.length ? "All answers have ended." : part("answers").textContent;
    running = now;
}

// What is wider than its column can be scrolled by keys too.
function reachable() {
    for (const box of element.querySelectorAll(".bt-text, .bt-rendered pre, .bt-read-as code")) {
        if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
        else box.removeAttribute("tabindex");
    }
}

function stale() {
    const note = element.querySelector(".bt-stale"), answers = element.querySelector("[data-asked]");
    const box = document.querySelector("#bt-prompt textarea");
    if (note && box) note.hidden = running || !answers || plain(answers.dataset.asked) === plain(box.value);
}

function plain(text) {
    return text.replace(/\r\n?/g, "\n");
}

async function copy(button) {
    const text = button.closest(".bt-answer").querySelector(".bt-text").textContent;
    let said = "Copied";
    try {
        await navigator.clipboard.writeText(text);
    } catch {
        said = "The browser does not allow it";
    }
    button.textContent = part("said").textContent = said;
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

element.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-do]");
    if (button?.dataset.do === "copy") copy(button);
    if (button?.dataset.do === "compare") trigger("select", { place: Number(button.dataset.place) });
});
element.addEventListener("change", (event) => {
    if (!event.target.closest(".bt-as-markdown")) return;
    element.classList.toggle("bt-markdown", event.target.checked);
    try { localStorage.setItem(MARKDOWN, event.target.checked ? "yes" : "no"); } catch { /* it is then forgotten */ }
    reachable();
});
document.addEventListener("input", (event) => {
    if (event.target.closest("#bt-prompt")) stale();
});
new ResizeObserver(reachable).observe(element); // what fits a wide window may not fit a narrow one, or letters of another font
watch("value", () => show(props.value));
show(props.value);
