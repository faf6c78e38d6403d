// For who uses keys or hears the page: tabs obey the arrows, a button that ran keeps the focus, and what waits and ends is said.

const OFTEN = 1000, SELDOM = 10_000; // milliseconds between two looks at a wait, and between two words that differ in a number alone
const OWN_WORDS = ["bt-run", "bt-ask", "bt-again"]; // answers.js says how these end
const aloud = document.createElement("div"); // on the page from the beginning: what comes together with its text is not read out
aloud.id = "bt-aloud";
aloud.className = "bt-unseen-words";
aloud.setAttribute("role", "status");
document.querySelector(".gradio-container").append(aloud);

// Gradio's tabs obey Tab, Enter and the space bar.
document.addEventListener("keydown", (event) => {
    const list = event.target.closest("[role=tablist]");
    if (!list || event.altKey || event.ctrlKey || event.metaKey) return;
    const tabs = [...list.querySelectorAll("[role=tab]:not(:disabled)")], at = tabs.indexOf(event.target), last = tabs.length - 1;
    const to = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at ? at - 1 : last, Home: 0, End: last }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    tabs[to].focus();
    tabs[to].click();
});

// Why a tab waits, or a section of the head, as it stands there.
function waiting(button) {
    const words = button.closest("[role=tabpanel], #bt-models, #bt-base").querySelectorAll(".bt-empty, .bt-running .bt-silent");
    return [...words].find((one) => one.offsetParent)?.textContent ?? "";
}

function sayWaits(button) {
    let told = waiting(button), at = Date.now(); // what stood there before the button was pressed
    const looks = setInterval(() => {
        if (!button.isConnected) return clearInterval(looks); // Gradio takes a button that is hidden out of the page
        const words = waiting(button), [kind, before] = [words, told].map((one) => one.replace(/\d+/g, ""));
        if (!button.disabled || words === told || (kind === before && Date.now() < at + SELDOM)) return;
        [aloud.textContent, told, at] = [words, words, Date.now()];
    }, OFTEN);
    return looks;
}

// A button that cannot be pressed loses the focus: Stop has it meanwhile, and in the end the button again.
const watched = new WeakSet();
function watch(button, stop) {
    if (watched.has(button)) return;
    watched.add(button);
    let ran = false;
    const by_keys = document.activeElement === button, waits = sayWaits(button);
    const lost = () => by_keys && [document.body, button, stop].includes(document.activeElement);
    const observer = new MutationObserver(() => {
        if (button.disabled) {
            ran = true;
            setTimeout(() => { if (button.disabled && lost()) stop.focus({ preventScroll: true }); }, 50);
        } else if (ran) {
            observer.disconnect();
            clearInterval(waits);
            watched.delete(button);
            if (lost()) button.focus({ preventScroll: true });
            if (!OWN_WORDS.includes(button.id)) aloud.textContent = `${button.textContent.trim()}: this has ended.`;
        }
    });
    observer.observe(button, { attributes: true, attributeFilter: ["disabled"] });
}

// Stop stands beside the button that it stops, or where both of Compare's have theirs.
document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button || button.id.includes("stop")) return;
    const here = button.closest(".bt-actions")?.querySelector('button[id*="stop"]');
    const stop = here ?? (OWN_WORDS.includes(button.id) ? document.querySelector("#bt-stop") : null);
    if (stop) watch(button, stop);
});
