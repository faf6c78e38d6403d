// A visitor's own runs: kept in this browser, newest first and bounded; saved as files; dropped on the page. All text is set as text.

const PREFIX = "bitune-run:";
const MOST_RUNS = 50, MOST_CHARACTERS = 2_000_000; // browsers give a page about five million
const LARGEST_FILE = 2 ** 20; // what the server reads of one
const part = (name) => element.querySelector('[data-part="' + name + '"]');

function tell(words) {
    part("words").textContent = words || "";
}

// A browser may refuse to keep anything, in a private window or in a frame.
function stored(work) {
    try {
        return work(window.localStorage);
    } catch (error) {
        tell("This browser keeps no runs for this page (" + error.name + ").");
        return undefined;
    }
}

function keys() {
    return stored((store) => Object.keys(store).filter((key) => key.startsWith(PREFIX)).sort().reverse()) || [];
}

function remember(text) {
    if (text.length > MOST_CHARACTERS / 4) return tell("This run is too long to be kept here; save it as a file.");
    stored((store) => {
        store.setItem(PREFIX + new Date().toISOString() + ":" + Math.random().toString(36).slice(2, 8), text);
        let characters = 0;
        keys().forEach((key, place) => {
            characters += store.getItem(key).length;
            if (place >= MOST_RUNS || characters > MOST_CHARACTERS) store.removeItem(key);
        });
    });
    list();
}

function make(parent, tag, css, text) {
    const made = document.createElement(tag);
    if (css) made.className = css;
    made.textContent = text;
    parent.append(made);
    return made;
}

// What a run is called here; another page of this address may have written something else under such a key.
function titleOf(text) {
    try {
        const { request, recorded } = JSON.parse(text);
        const prompt = request.prompt.trim().split("\n")[0];
        const about = new Date(recorded).toLocaleString() + " · " + request.variants.join(", ");
        return { prompt: [...prompt].slice(0, 90).join(""), about };
    } catch {
        return { prompt: "A run that cannot be read", about: "" };
    }
}

function list() {
    const found = keys();
    part("count").textContent = found.length ? " (" + found.length + ")" : "";
    part("clear").hidden = !found.length;
    part("clear").textContent = "Delete all";
    part("list").replaceChildren();
    if (!part("history").open) return;
    if (!found.length) make(part("list"), "li", "bt-about", "None yet. Every run that ends in Compare is kept here.");
    for (const key of found) {
        const { prompt, about } = titleOf(stored((store) => store.getItem(key)) || "");
        const row = make(part("list"), "li", "", ""), open = make(row, "button", "bt-open", prompt);
        make(row, "span", "bt-about", about);
        const remove = make(row, "button", "bt-delete", "Delete");
        open.type = remove.type = "button";
        open.dir = "auto";
        open.dataset.key = remove.dataset.key = key;
        remove.setAttribute("aria-label", "Delete " + prompt);
    }
}

function openRun(text, name) {
    tell("");
    part("history").open = false;
    trigger("upload", { text, name });
}

async function openFile(file) {
    if (!file) return;
    const refused = (why) => tell(`“${file.name}” is not a saved run${why}. Open a .json file that “Save run” has made.`);
    if (file.size > LARGEST_FILE) return refused(": it is larger than 1 MB");
    let text;
    try {
        text = await file.text();
    } catch {
        return refused(", as it cannot be read"); // a folder, or a file that is gone
    }
    openRun(text, file.name);
}

function saveFile(text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "bitune-run-" + new Date(JSON.parse(text).recorded).toISOString().slice(0, 19).replace(/[:T]/g, "-") + ".json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const withFiles = (event) => element.isConnected && event.dataTransfer && [...event.dataTransfer.types].includes("Files");

document.addEventListener("bt-run-ended", (event) => event.detail && remember(event.detail));
document.addEventListener("bt-save-run", (event) => event.detail && saveFile(event.detail));
document.addEventListener("dragover", (event) => withFiles(event) && event.preventDefault());
document.addEventListener("drop", (event) => {
    if (!withFiles(event)) return;
    event.preventDefault();
    openFile(event.dataTransfer.files[0]);
});
// A link of this page that is opened in its own window changes what is behind the # alone.
window.addEventListener("hashchange", () => window.location.hash.startsWith("#page=") && window.location.reload());
window.addEventListener("storage", list); // another window of this page
part("history").addEventListener("toggle", list);
// The list closes at a press outside it, which opening another tab is too, by whatever means, and by Escape. First of all listeners: what is
// pressed in the list may be gone from the page after the others.
for (const kind of ["pointerdown", "click"]) {
    document.addEventListener(kind, (event) => {
        if (!part("history").contains(event.target)) part("history").open = false;
    }, true);
}
document.addEventListener("keydown", (event) => {
    const history = part("history"), focused = document.activeElement;
    if (event.key !== "Escape" || !history.open) return;
    history.open = false;
    if (history.contains(focused) || focused === document.body) history.querySelector("summary").focus();
});
element.addEventListener("change", (event) => {
    openFile(event.target.files[0]);
    event.target.value = ""; // the same file may be opened again
});
part("clear").addEventListener("click", () => {
    if (part("clear").textContent === "Delete all") return (part("clear").textContent = "Delete all: press again");
    stored((store) => keys().forEach((key) => store.removeItem(key)));
    list();
});
part("list").addEventListener("click", (event) => {
    const { key } = event.target.dataset;
    if (!key) return;
    if (event.target.matches(".bt-open")) return openRun(stored((store) => store.getItem(key)) || "", "");
    stored((store) => store.removeItem(key));
    list();
});
list();
