// Classifies and embeds in the page. All files come from the folder that the page is in.
import { AutoModel, AutoTokenizer, env, pipeline } from "@huggingface/transformers";

env.allowLocalModels = true;
env.allowRemoteModels = false;
env.localModelPath = "models/";
env.useBrowserCache = false; // it would keep an old model when another takes its name
env.backends.onnx.wasm.wasmPaths = new URL("lib/", import.meta.url).href;

const INT8 = { device: "wasm", dtype: "q8" };
const SHOWN = 5; // labels
const find = (id) => document.getElementById(id);

let classifier, embedder; // promises, so that each model is loaded once

/** All labels of a text with their scores, the best first. */
export async function classify(text) {
  classifier ??= pipeline("text-classification", "classifier", INT8);
  return (await classifier)(text, { top_k: null });
}

/** The embedding of a text, of length 1: the graph pools and normalises. */
export async function embed(text) {
  embedder ??= Promise.all([AutoTokenizer.from_pretrained("embedder"), AutoModel.from_pretrained("embedder", INT8)]);
  const [tokenizer, model] = await embedder;
  const { sentence_embedding } = await model(tokenizer(text, { truncation: true }));
  return [...sentence_embedding.data];
}

function megabytes(name) {
  const { href } = new URL(`models/${name}/onnx/model_quantized.onnx`, import.meta.url);
  return `${(performance.getEntriesByName(href)[0].decodedBodySize / 1e6).toFixed(1)} MB`;
}

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

async function showScores() {
  const start = performance.now();
  const scores = await classify(find("text").value);
  const end = performance.now();
  const rows = scores.slice(0, SHOWN).map(({ label, score }) =>
    element("li", {}, element("span", {}, label), element("meter", { value: score }), element("span", {}, `${(100 * score).toFixed(1)}%`)),
  );
  find("scores").replaceChildren(element("ul", {}, ...rows));
  if (find("classifier-size").textContent === "–") {
    find("classifier-size").textContent = megabytes("classifier");
    find("first").textContent = `${(end / 1000).toFixed(1)} s`; // since the page was opened
  }
  find("last").textContent = `${(end - start).toFixed(0)} ms`;
}

async function showSimilarities() {
  const lines = find("lines").value.split("\n").filter((line) => line.trim());
  const embeddings = [];
  // One at a time: in int8 a text's numbers depend on the other texts of its batch.
  for (const line of lines) embeddings.push(await embed(line));
  const numbers = lines.map((_, index) => element("th", { scope: "col" }, `${index + 1}`));
  const rows = embeddings.map((one, index) => {
    const cells = embeddings.map((other) => {
      const cosine = one.reduce((sum, value, place) => sum + value * other[place], 0); // both are of length 1
      const cell = element("td", {}, cosine.toFixed(2));
      cell.style.background = `color-mix(in srgb, var(--accent) ${Math.max(0, 60 * cosine)}%, transparent)`;
      return cell;
    });
    return element("tr", {}, element("th", { scope: "row" }, `${index + 1}  ${lines[index]}`), ...cells);
  });
  find("similarities").replaceChildren(element("table", {}, element("tr", {}, element("td"), ...numbers), ...rows));
  find("embedder-size").textContent = megabytes("embedder");
}

/** Runs what fills an output, and shows there what went wrong. */
async function fill(output, show) {
  await show().catch((error) => find(output).replaceChildren(error.message));
}

function onSubmit(form, output, show) {
  find(form).addEventListener("submit", (event) => {
    event.preventDefault();
    fill(output, show);
  });
}

onSubmit("classify", "scores", showScores);
onSubmit("compare", "similarities", showSimilarities);
await fill("scores", showScores); // the embedder is loaded behind the first answer
await fill("similarities", showSimilarities);
