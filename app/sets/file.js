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
    let text;
    try {
        text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer()); // file.text() would replace what it cannot read
    } catch {
        words.textContent = "The file is no text in UTF-8; save it as UTF-8 (in a spreadsheet: CSV UTF-8) and choose it again.";
        return;
    }
    words.textContent = "";
    trigger("upload", { text, name: file.name });
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
