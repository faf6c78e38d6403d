// A file with prompts, read in the browser: what of it is text goes to the server, as if it had been pasted.

const LARGEST = Number(element.querySelector("[data-largest]").dataset.largest); // bytes that the server takes
const words = element.querySelector('[data-part="words"]');
const place = element.closest(".bt-set-form") || element;

async function openFile(file) {
    if (!file) return;
    if (file.size > LARGEST) {
        words.textContent = "The file has " + file.size.toLocaleString("en") + " bytes and this page takes " + LARGEST.toLocaleString("en") + "; choose a smaller one.";
        return;
    }
    words.textContent = "";
    trigger("upload", { text: await file.text(), name: file.name });
}

const withFiles = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");

element.addEventListener("change", (event) => {
    openFile(event.target.files[0]);
    event.target.value = ""; // the same file may be opened again
});
// Elsewhere on the page a file that is dropped is a saved run.
for (const name of ["dragover", "drop"])
    place.addEventListener(name, (event) => {
        if (!withFiles(event)) return;
        event.preventDefault();
        event.stopPropagation();
        if (name === "drop") openFile(event.dataTransfer.files[0]);
    });
