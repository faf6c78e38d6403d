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
