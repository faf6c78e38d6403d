// Answers for benchmarks/llama.py: a line of JSON {"ids", "tokens", "answers"} comes in, the seconds that the answers took go out.
// Every answer reads its prompt anew, greedily, and no token ends it.
import {createRequire} from "node:module";
import {createInterface} from "node:readline";
import {pathToFileURL} from "node:url";

const [folder, file, threads] = process.argv.slice(2);
const {getLlama} = await import(pathToFileURL(createRequire(`${folder}/`).resolve("node-llama-cpp")));
const llama = await getLlama({gpu: false, build: "never", maxThreads: Number(threads), logLevel: "error"});
const model = await llama.loadModel({modelPath: file});
const context = await model.createContext({contextSize: 2048, threads: Number(threads)});

async function answer(ids, tokens) {
    const sequence = context.getSequence();
    let count = 0;
    for await (const _ of sequence.evaluate(ids, {temperature: 0, yieldEogToken: true})) {
        if (++count === tokens) break;
    }
    sequence.dispose();
    if (count !== tokens) throw new Error(`an answer has ${count} tokens in place of ${tokens}`);
}

console.log(JSON.stringify("ready"));
for await (const line of createInterface({input: process.stdin})) {
    const {ids, tokens, answers} = JSON.parse(line), started = performance.now();
    for (let number = 0; number < answers; number++) await answer(ids, tokens);
    console.log(JSON.stringify((performance.now() - started) / 1000));
}
await llama.dispose();
