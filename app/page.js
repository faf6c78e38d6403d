// Ctrl or Cmd + Enter in the prompt presses Run.
document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    if (!event.target.closest("#bt-prompt")) return;
    event.preventDefault();
    const run = document.querySelector("#bt-run");
    if (run && !run.disabled) run.click();
});
