// What mixing.css counts; in a style sheet Gradio leaves out an @property. A page is loaded once, a script may run again.
try { CSS.registerProperty({ name: "--bt-passed", syntax: "<integer>", inherits: false, initialValue: "0" }); } catch { /* it is there */ }

// What a button brings appears where it can be seen.
const RESULTS = {
    "bt-run": "#bt-results", "bt-ask": "#bt-results", "bt-again": "#bt-results", "bt-read-attention": "#bt-attention",
    "bt-look-tokens": "#bt-tokens", "bt-go-on-from": "#bt-gone-on", "bt-layers-run": ".bt-why-part:has(#bt-layers)", "bt-lens-run": ".bt-why-part:has(#bt-lens)",
    "bt-measure": "#bt-moved-layers", "bt-sweep-run": "#bt-sweep", "bt-set-run": "#bt-set-status",
};
const SECOND = 1000, MARGIN = 16; // milliseconds, pixels
let moved = 0; // when the visitor last moved the page by hand
for (const kind of ["wheel", "touchmove", "keydown", "pointerdown"]) addEventListener(kind, () => { moved = Date.now(); }, { passive: true });

// As far up as is needed to see all of it, or its beginning where it is longer than the window.
function bringUp(place) {
    const box = document.querySelector(place)?.getBoundingClientRect();
    const by = box ? Math.min(box.top - MARGIN, box.bottom + MARGIN - innerHeight) : 0;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (by > 1) scrollBy({ top: by, behavior: calm ? "instant" : "smooth" });
}

// While results grow, until they have ended or the visitor has moved the page.
function follow(button, place) {
    const pressed = Date.now();
    if (document.querySelector(place)?.getBoundingClientRect().top < 0) document.querySelector(place).scrollIntoView();
    const timer = setInterval(() => {
        if (moved <= pressed) bringUp(place);
        if (moved > pressed || (Date.now() > pressed + SECOND && !button.disabled)) clearInterval(timer);
    }, SECOND / 4);
}

document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (RESULTS[button?.id]) follow(button, RESULTS[button.id]);
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
