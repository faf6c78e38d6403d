// The head is a line after the first look: when something was run, in the other tabs, and for who has been here before.
const SEEN = "bt-seen";
const small = (yes) => {
    document.documentElement.classList.toggle("bt-small", yes);
    document.querySelector(".bt-more")?.replaceChildren(yes ? "What is this?" : "Show less");
};

function looked() {
    small(true);
    try { localStorage.setItem(SEEN, "yes"); } catch { /* then the head is whole again next time */ }
}

try { small(localStorage.getItem(SEEN) === "yes"); } catch { small(false); }

// What a button brings appears where it can be seen, and whoever pressed it by keys goes on from there.
const RUNS = {
    "bt-run": { results: "#bt-results", stop: "#bt-stop" },
    "bt-ask": { results: "#bt-results", stop: "#bt-stop" },
    "bt-again": { results: "#bt-results", stop: "#bt-stop" },
    "bt-read-attention": { results: "#bt-attention", stop: "#bt-stop-attention" },
};
let moved = 0; // when the visitor last moved the page by hand
for (const kind of ["wheel", "touchmove"]) addEventListener(kind, () => { moved = Date.now(); }, { passive: true });

function intoView(place) {
    const top = document.querySelector(place)?.getBoundingClientRect().top;
    if (top === undefined || (top >= 0 && top < innerHeight / 2)) return;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    scrollBy({ top: top - 16, behavior: calm ? "instant" : "smooth" });
}

// A button that cannot be pressed loses the focus: Stop has it meanwhile, and in the end the button again.
function keepFocus(button, stop) {
    let ran = false;
    const lost = () => [document.body, button, stop].includes(document.activeElement);
    const observer = new MutationObserver(() => {
        if (button.disabled) {
            ran = true;
            setTimeout(() => { if (button.disabled && lost()) stop?.focus({ preventScroll: true }); }, 50);
        } else if (ran) {
            observer.disconnect();
            if (lost()) button.focus({ preventScroll: true });
        }
    });
    observer.observe(button, { attributes: true, attributeFilter: ["disabled"] });
}

document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    const run = RUNS[button?.id];
    if (button?.matches(".bt-more")) small(!document.documentElement.classList.contains("bt-small"));
    if (button?.getAttribute("role") === "tab" && button.textContent.trim() !== "Compare") looked();
    if (!run) return;
    const pressed = Date.now();
    looked();
    if (document.activeElement === button) keepFocus(button, document.querySelector(run.stop));
    for (const wait of [150, 600]) setTimeout(() => { if (moved < pressed) intoView(run.results); }, wait);
});

// Ctrl or Cmd + Enter in the prompt presses Run.
document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    if (!event.target.closest("#bt-prompt")) return;
    event.preventDefault();
    const run = document.querySelector("#bt-run");
    if (run && !run.disabled) run.click();
});

// The bar and the number of a ratio follow its slider; with the box ticked, keys and values of a layer move together.
document.addEventListener("input", (event) => {
    const slider = event.target;
    if (!slider.matches("#bt-sliders input[type=range]")) return;
    const together = document.querySelector("#bt-together").checked;
    const moved = together ? `#bt-sliders input[data-layer="${slider.dataset.layer}"]` : null;
    for (const one of together ? document.querySelectorAll(moved) : [slider]) {
        one.value = slider.value;
        delete one.dataset.exact; // what a hand has moved is what the slider says
        one.parentElement.style.setProperty("--a", 100 * one.value);
        one.closest(".bt-level").querySelector("output").textContent = Number(one.value).toFixed(2);
    }
});
